"""Rewards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from mmpost.errors import TrainError
from mmpost.settings import Settings
from mmpost.types import Context, Reply, Reward, Sample


class Score(Settings):
    """Score every reply by every reward, and add them up with their weights.

    A reward that returns None does not apply to the sample and is left out of the sum; a reply that none applies to
    has reward NaN, which the advantages leave out. An exception in a reward stops the run: a reply is data, a bug is
    not.
    """

    makes: ClassVar[tuple[str, ...]] = ("reward",)
    clock: ClassVar[str] = "score"

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
                try:
                    value = reward(sample, reply)
                except Exception as e:
                    raise TrainError(
                        f"reward {name!r} raised {type(e).__name__}: {e}\nsample {sample.uid}, truth {sample.truth!r}, "
                        f"reply {reply.text!r}"
                    ) from e
            if value is not None:
                scores[name] = float(value)
        total = sum(self.weights.get(k, 1.0) * v for k, v in scores.items()) if scores else math.nan
        return replace(reply, scores={**reply.scores, **scores}, columns={**reply.columns, "reward": total})

    def _log(self, reply: Reply, context: Context) -> None:
        for name in self.rewards:
            if name in reply.scores:
                context.log(f"reward/{name}", reply.scores[name])
        total = reply.columns["reward"]
        if isinstance(total, float) and not math.isnan(total):
            context.log("reward/total", total)
