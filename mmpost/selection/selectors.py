"""Which samples are worth training on, from repeated replies to each: transforms of stages that make data.

Each sample is measured by itself; the verdicts come when all are (`settle`). What was measured is on record, and the
verdicts follow from it alone, so there is no other state to keep.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean, pstdev
from typing import ClassVar

from pydantic import Field, model_validator

from mmpost.config.settings import Settings
from mmpost.errors import ConfigError
from mmpost.transforms.columns import finite_or_none, reward
from mmpost.types import Context, Reply, Sample, SampleRecord, Selector

REWARD = "reward"
"""What the weighted sum of all rewards is called among the scores."""
SLACK = 1e-9
"""A reply this close below the least right score is right: sums of fractions."""

Columns = dict[str, dict[str, float]]
"""More columns by uid."""


class _Measure(Selector, Settings):
    """Writes to each sample what its sampled replies scored, and lets go of their tokens."""

    makes: ClassVar[tuple[str, ...]] = ("k",)

    k: int = Field(default=8, ge=1)
    """Replies to each sample."""
    right: float | None = None
    """A reply is right when it scores at least this. By default 1 for a named score, and for the reward what the stage
    declares for a right reply (`gold`)."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The scores that are looked at."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return [self._measured(sample, context) for sample in samples]

    def _measured(self, sample: Sample, context: Context) -> Sample:
        drawn = [reply for reply in sample.replies if reply.origin == "policy"]
        columns = {"k": float(len(drawn))}
        for name in self.names:
            values = [reward(sample, r) if name == REWARD else finite_or_none(r.scores.get(name)) for r in drawn]
            found = [v for v in values if v is not None]
            if not found:
                continue
            right = sum(v >= self._right(name) - SLACK for v in found)
            context.log(f"select/right/{name}", right, len(found))
            columns |= {f"n/{name}": float(len(found)), f"right/{name}": float(right)}
            columns |= {f"mean/{name}": fmean(found), f"std/{name}": pstdev(found)}
        replies = tuple(_bare(reply) for reply in sample.replies)
        return replace(sample, replies=replies, columns={**sample.columns, **columns})

    def _right(self, name: str) -> float:
        if self.right is not None:
            return self.right
        if name != REWARD:
            return 1.0
        raise ConfigError(
            f"{type(self).__name__} wants the least reward of a right reply, and nothing declares one: say right=0.9, "
            "or name a score that is 1 for a right reply"
        )


class InstanceFilter(_Measure):
    """Drop samples that the policy never gets right, and, if asked, those that it gets right too often (RIF-RFT).

    Kept iff min_correct <= right replies <= max_correct. What cannot be read counts as 0 of k, and is never kept.
    """

    conflicts: ClassVar[Mapping[str | type, str]] = {
        "injected": "it drops the samples whose every rollout is wrong, from which an injected truth would teach most"
    }

    score: str = REWARD
    """What tells a right reply: a score by its name, or the reward as in training."""
    min_correct: int = Field(default=1, ge=0)
    """Fewest right replies of a sample that is kept."""
    max_correct: int | None = None
    """Most right replies of a sample that is kept; k - 1 also drops what is solved. By default no limit."""

    @model_validator(mode="after")
    def _fits(self) -> InstanceFilter:
        if self.max_correct is not None and self.max_correct < self.min_correct:
            raise ValueError(f"max_correct={self.max_correct} must be at least min_correct={self.min_correct}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return (self.score,)

    def finalize(self, records: Sequence[SampleRecord]) -> Columns:
        """The column kept: 1 or 0."""
        most = math.inf if self.max_correct is None else self.max_correct
        counts = {e.uid: e.columns.get(f"right/{self.score}", 0.0) for e in records}
        lost = {e.uid for e in records if e.drop_reason}
        return {uid: {"kept": float(self.min_correct <= n <= most and uid not in lost)} for uid, n in counts.items()}


class VarianceSelection(_Measure):
    """Keep samples whose replies differ in what they score (Temporal-R1): only these have a gradient in their group.

    By a score that says right or wrong: kept iff some replies are right and some are not. By a continuous one: the
    `top` share with the largest standard deviation among the rows of one kind (those with the same scores), as far as
    their mean lies within `means`. A row with both sorts of score is kept if either keeps it.
    """

    conflicts: ClassVar[Mapping[str | type, str]] = {
        "injected": "it drops the samples whose every rollout is wrong, from which an injected truth would teach most"
    }

    discrete: tuple[str, ...] = (REWARD,)
    """Scores that say right or wrong, by their names; `reward` is their weighted sum."""
    continuous: tuple[str, ...] = ()
    """Scores of which more is better, such as an overlap."""
    top: float = Field(default=0.5, gt=0, le=1)
    """Share of the rows of a kind that a continuous score keeps at most."""
    means: tuple[float, float] = (0.1, 0.9)
    """Mean of a continuous score over the replies to a row that is kept: neither hopeless nor solved."""

    @model_validator(mode="after")
    def _fits(self) -> VarianceSelection:
        both = sorted(set(self.discrete) & set(self.continuous))
        if both or not self.names:
            raise ValueError(f"wanted each score once, as discrete or as continuous, found {both or 'none'}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.discrete, *self.continuous)

    def finalize(self, records: Sequence[SampleRecord]) -> Columns:
        """The column kept: 1 or 0."""
        kept = {e.uid for e in records for name in self.discrete if self._mixed(e, name)}
        for name in self.continuous:
            kinds: dict[tuple[str, ...], list[SampleRecord]] = {}
            for record in records:
                if f"std/{name}" in record.columns and not record.drop_reason:
                    kinds.setdefault(self._kind(record), []).append(record)
            for rows in kinds.values():
                kept |= {e.uid for e in self._spread(rows, name)}
        return {e.uid: {"kept": float(e.uid in kept)} for e in records}

    def _mixed(self, record: SampleRecord, name: str) -> bool:
        right, n = record.columns.get(f"right/{name}", 0.0), record.columns.get(f"n/{name}", 0.0)
        return 1 <= right <= n - 1 and not record.drop_reason

    def _spread(self, rows: Sequence[SampleRecord], name: str) -> list[SampleRecord]:
        low, high = self.means
        fit = [e for e in rows if low <= e.columns[f"mean/{name}"] <= high and e.columns[f"std/{name}"] > SLACK]
        # A stable sort: of equals, the first of the source.
        return sorted(fit, key=lambda e: -e.columns[f"std/{name}"])[: round(self.top * len(rows))]

    def _kind(self, record: SampleRecord) -> tuple[str, ...]:
        return tuple(name for name in self.names if f"n/{name}" in record.columns)


class Difficulty(_Measure):
    """Keep all that can be read, in the order of measured difficulty: what scores most comes first (curriculum).

    Train on it with data.order=manifest.
    """

    score: str = REWARD
    """Its mean over the replies is how easy a sample is."""
    right: float | None = 1.0
    """A reply is right when it scores at least this; only counted."""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.score,)

    def finalize(self, records: Sequence[SampleRecord]) -> Columns:
        """The columns kept, and order: 0 for the easiest. A sample to which the score does not apply is not kept."""
        name = f"mean/{self.score}"
        known = sorted((e for e in records if name in e.columns and not e.drop_reason), key=lambda e: -e.columns[name])
        places = {e.uid: {"kept": 1.0, "order": float(i)} for i, e in enumerate(known)}
        return {e.uid: places.get(e.uid, {"kept": 0.0}) for e in records}


SELECTORS: Mapping[str, type[_Measure]] = {
    "rif": InstanceFilter,
    "variance": VarianceSelection,
    "difficulty": Difficulty,
}
"""What `select.by` may be, besides a class of your own as package.module:Class or file.py:Class."""


def _bare(reply: Reply) -> Reply:
    """Without tokens and what goes with them: verdicts need none, and records of whole data sets must be small."""
    columns = {name: value for name, value in reply.columns.items() if isinstance(value, int | float)}
    return replace(reply, token_ids=None, columns=columns)
