"""Rewards."""

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
    """Score every reply by every reward, and add them up with their weights.

    A reward that returns None does not apply to the sample and is left out of the sum; a reply that none applies to
    has reward NaN, which the advantages leave out. A reward that raises, or returns what is no finite number, stops the
    run and shows the sample: a reply is data, a bug is not.
    """

    makes: ClassVar[tuple[str, ...]] = ("reward",)
    timer: ClassVar[str] = "score"

    rewards: Mapping[str, Reward]
    """Functions (sample, reply) -> number or None, by the name under which they are logged."""
    weights: Mapping[str, float] = {}
    """Factor of each; 1 where none is given, 0 to log only."""
    zero_for_truth: tuple[str, ...] = ()
    """Rewards that an injected truth does not get (ViSurf: labels carry no reasoning)."""

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
                value = _asked(name, reward, sample, reply)
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


def _asked(name: str, reward: Reward, sample: Sample, reply: Reply) -> float | None:
    """What the reward says of the reply. Raises TrainError with the sample, and the line that raised."""
    about = (
        f"sample {sample.uid!r}, truth {sample.truth!r:.500}, reply {reply.text!r:.2000}. `mmpost check` tries rewards "
        "before a run; MMPOST_TRACEBACK=1 shows where it comes from"
    )
    try:
        said = reward(sample, reply)
    except Exception as e:
        place = traceback.extract_tb(e.__traceback__)[-1]
        raise TrainError(
            f"reward {name!r} raised {type(e).__name__}: {e} ({Path(place.filename).name}:{place.lineno})\n{about}"
        ) from e
    if said is None:
        return None
    value = float(said) if isinstance(said, SupportsFloat) else math.nan
    if not math.isfinite(value):
        raise TrainError(
            f"reward {name!r}: wanted a finite number, or None where it does not apply, found {said!r:.80}\n{about}"
        )
    return value
