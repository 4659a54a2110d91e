"""Rewards of replies: the reward functions, the smoothed reward of an injected truth, and what cannot be parsed."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import ClassVar, SupportsFloat

from pydantic import Field

from mmpost.config.settings import Settings
from mmpost.core.columns import reward, with_column
from mmpost.errors import DataError, TrainError
from mmpost.transforms.advantage import TRUTH_TOLERANCE
from mmpost.types import Context, Gold, Reply, Reward, Sample, Transform


class Score(Transform, Settings):
    """Apply every reward function to every reply; the weighted sum of the scores is the reply's "reward".

    A function returns None where it does not apply to the sample, and is then left out of the sum. A reply that none
    applies to has reward NaN, which advantages ignore. A function that raises, or returns anything but a finite number,
    stops the run with TrainError, which shows the sample: a reward has to cope with every reply, so this is a bug.
    """

    makes: ClassVar[tuple[str, ...]] = ("reward",)
    timer: ClassVar[str] = "score"

    rewards: Mapping[str, Reward]
    """Functions (sample, reply) -> number or None; NAME is logged as reward/NAME."""
    weights: Mapping[str, float] = {}
    """Weights of the rewards, 1 by default; 0 only logs a reward."""
    zero_for_truth: tuple[str, ...] = ()
    """Rewards that are 0 for an injected truth (ViSurf: labels contain no reasoning to reward)."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        scored = []
        for sample in samples:
            replies = tuple(self._score(sample, reply) for reply in sample.replies)
            for reply in replies:
                if reply.origin != "truth":
                    self._log(reply, context)
            scored.append(replace(sample, replies=replies))
        return scored

    def _score(self, sample: Sample, reply: Reply) -> Reply:
        scores: dict[str, float] = {}
        for name, function in self.rewards.items():
            if reply.origin == "truth" and name in self.zero_for_truth:
                value: float | None = 0.0
            else:
                value = _apply(name, function, sample, reply)
            if value is not None:
                scores[name] = value
        total = sum(self.weights.get(k, 1.0) * v for k, v in scores.items()) if scores else math.nan
        return replace(reply, scores={**reply.scores, **scores}, columns={**reply.columns, "reward": total})

    def _log(self, reply: Reply, context: Context) -> None:
        for name in self.rewards:
            if name in reply.scores:
                context.log(f"reward/{name}", reply.scores[name])
        total = reply.columns["reward"]
        if isinstance(total, float) and not math.isnan(total):
            context.log("reward/total", total)


def _apply(name: str, function: Reward, sample: Sample, reply: Reply) -> float | None:
    """The score of the reply. Raises TrainError with the sample and the line that raised."""
    details = (
        f"{sample.label}, truth {sample.truth!r:.500}, reply {reply.text!r:.2000}. `mmpost check` tries rewards "
        "before a run; MMPOST_TRACEBACK=1 shows the traceback"
    )
    try:
        score = function(sample, reply)
    except Exception as e:
        place = traceback.extract_tb(e.__traceback__)[-1]
        raise TrainError(
            f"reward {name!r} raised {type(e).__name__}: {e} ({Path(place.filename).name}:{place.lineno})\n{details}"
        ) from e
    if score is None:
        return None
    # Also takes the scalars of numpy and torch.
    value = float(score) if isinstance(score, SupportsFloat) else math.nan
    if not math.isfinite(value):
        raise TrainError(
            f"reward {name!r}: wanted a finite number, or None where it does not apply, found {score!r:.80}\n{details}"
        )
    return value


class SmoothTruth(Transform, Settings):
    """Once a rollout reaches the reward of the truth, set the truth's reward to the mean of the rollouts'.

    The truth's advantage is then 0: the policy does not imitate what it can already do (ViSurf's reward smoothing). Put
    it after Score, and before DropZeroVariance, which then drops solved groups.
    """

    makes: ClassVar[tuple[str, ...]] = ("reward",)

    tolerance: float = Field(default=TRUTH_TOLERANCE, ge=0)
    """A rollout whose reward is at most this far below the truth's has reached it."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return [self._smooth(sample, context) for sample in samples]

    def _smooth(self, sample: Sample, context: Context) -> Sample:
        rewards = [reward(sample, reply) for reply in sample.replies]
        truths = [i for i, reply in enumerate(sample.replies) if reply.origin == "truth"]
        rollouts = [r for i, r in enumerate(rewards) if i not in truths and r is not None]
        smoothed = [float("nan") if r is None else r for r in rewards]
        for i in truths:
            truth = rewards[i]
            reached = truth is not None and bool(rollouts) and max(rollouts) >= truth - self.tolerance
            context.log("truth/smoothed", float(reached))
            if reached:
                smoothed[i] = fmean(rollouts)
        return with_column(sample, "reward", smoothed)


class ParseRate(Transform, Settings):
    """Log the fraction of replies, and of gold replies, that the rewards cannot parse; samples are not changed.

    `reply/unparseable`: sampled replies. Training should reduce it, as such replies score low. `data/unparseable_gold`:
    an error in the data or the task; `mmpost check` lists the samples. Samples without usable truth are not counted
    there.
    """

    timer: ClassVar[str] = "score"

    gold: Gold
    """Writes the gold replies, and decides with `is_parseable` what can be parsed; without that, nothing is logged."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        is_parseable = self.gold.is_parseable
        if is_parseable is None:
            return samples
        for sample in samples:
            for reply in sample.replies:
                if reply.origin == "policy":
                    context.log("reply/unparseable", float(not is_parseable(reply.text)))
            text = gold_text(self.gold, sample)
            if text is not None:
                context.log("data/unparseable_gold", float(not is_parseable(text)))
        return samples


def gold_text(gold: Gold, sample: Sample) -> str | None:
    """The gold reply to a sample; None without usable truth. Raises DataError with the sample if `gold.text` raises."""
    try:
        return gold.text(sample)
    except Exception as e:
        raise DataError(
            f"{sample.label}: writing its gold reply raised {type(e).__name__}: {e}; its truth is "
            f"{sample.truth!r:.200}. Fix the row, or let the task's `gold` return None for it"
        ) from e
