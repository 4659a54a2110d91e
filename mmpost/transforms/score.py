"""Apply the reward functions."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, SupportsFloat

from mmpost.config.settings import Settings
from mmpost.errors import TrainError
from mmpost.types import Context, Reply, Reward, Sample, Transform


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
        for name, reward in self.rewards.items():
            if reply.origin == "truth" and name in self.zero_for_truth:
                value: float | None = 0.0
            else:
                value = _apply(name, reward, sample, reply)
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


def _apply(name: str, reward: Reward, sample: Sample, reply: Reply) -> float | None:
    """The score of the reply. Raises TrainError with the sample and the line that raised."""
    details = (
        f"sample {sample.uid!r}, truth {sample.truth!r:.500}, reply {reply.text!r:.2000}. `mmpost check` tries rewards "
        "before a run; MMPOST_TRACEBACK=1 shows the traceback"
    )
    try:
        score = reward(sample, reply)
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
