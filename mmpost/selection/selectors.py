"""Selectors: which samples are worth training on, measured by several sampled replies to each.

A selector is the last transform of a data-generation stage: `__call__` measures each sample and writes sample columns;
`finalize` derives the verdicts once all samples are measured. Verdicts depend only on recorded columns, so checkpoints
store no state of a selector.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean, pstdev
from typing import ClassVar

from pydantic import Field, model_validator

from mmpost.config.settings import Bound, Settings
from mmpost.core.columns import finite_or_none, reward
from mmpost.errors import ConfigError
from mmpost.types import Context, Reply, Sample, SampleRecord, Selector

REWARD = "reward"
"""The name of the reply's reward, the weighted sum of its scores."""
ROUNDING = 1e-9
"""Tolerance of comparisons of scores, which are sums of fractions."""

Columns = dict[str, dict[str, float]]
"""Columns to add, by uid."""


class _ScoreSelector(Selector, Settings):
    """Writes statistics of the sampled replies' scores to each sample, and drops the tokens of the replies.

    Sample columns: k, the number of sampled replies, and for each score NAME that applies n/NAME (replies that have
    it), right/NAME (how many of them are correct), mean/NAME and std/NAME (population standard deviation).
    """

    makes: ClassVar[tuple[str, ...]] = ("k",)

    k: int = Field(default=8, ge=1)
    """Replies sampled per sample."""
    right: float | None = None
    """Minimum score of a correct reply. By default 1 for a named score; for the reward, the reward of a correct reply
    that the stage's `gold` declares."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The scores to measure."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return [self._measure(sample, context) for sample in samples]

    def _measure(self, sample: Sample, context: Context) -> Sample:
        sampled = [reply for reply in sample.replies if reply.origin == "policy"]
        columns = {"k": float(len(sampled))}
        for name in self.names:
            values = [reward(sample, r) if name == REWARD else finite_or_none(r.scores.get(name)) for r in sampled]
            scores = [v for v in values if v is not None]
            if not scores:
                continue
            right = sum(score >= self._threshold(name) - ROUNDING for score in scores)
            context.log(f"select/right/{name}", right, len(scores))
            columns |= {f"n/{name}": float(len(scores)), f"right/{name}": float(right)}
            columns |= {f"mean/{name}": fmean(scores), f"std/{name}": pstdev(scores)}
        replies = tuple(_without_tokens(reply) for reply in sample.replies)
        return replace(sample, replies=replies, columns={**sample.columns, **columns})

    def _threshold(self, name: str) -> float:
        """The minimum score of a correct reply."""
        if self.right is not None:
            return self.right
        if name != REWARD:
            return 1.0
        raise ConfigError(
            f"{type(self).__name__} needs the minimum reward of a correct reply, and the task declares none; set "
            "right (such as right=0.9), or name a score that is 1 for a correct reply"
        )


class InstanceFilter(_ScoreSelector):
    """Rollout-based instance filtering (RIF, arXiv 2507.05386): drop samples that the policy never gets right.

    Keeps a sample iff min_correct <= number of correct replies <= max_correct; never keeps an unreadable one.
    """

    conflicts: ClassVar[Mapping[str | type, str]] = {
        "injected": "it drops the samples without a correct rollout, for which an injected truth is most useful"
    }

    score: str = REWARD
    """The score that decides whether a reply is correct: a score's name, or the reward of training."""
    min_correct: int = Field(default=1, ge=0)
    """Keep samples with at least this many correct replies."""
    max_correct: int | None = None
    """Keep samples with at most this many correct replies; k - 1 also drops solved samples. By default no limit."""

    @model_validator(mode="after")
    def _consistent(self) -> InstanceFilter:
        if self.max_correct is not None and self.max_correct < self.min_correct:
            raise ValueError(f"max_correct={self.max_correct} must be at least min_correct={self.min_correct}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return (self.score,)

    def finalize(self, records: Sequence[SampleRecord]) -> Columns:
        """The column kept (1 or 0) for each record."""
        maximum = math.inf if self.max_correct is None else self.max_correct
        counts = {record.uid: record.columns.get(f"right/{self.score}", 0.0) for record in records}
        dropped = {record.uid for record in records if record.drop_reason}
        return {
            uid: {"kept": float(self.min_correct <= n <= maximum and uid not in dropped)} for uid, n in counts.items()
        }


class VarianceSelection(_ScoreSelector):
    """Keep samples whose replies differ in their scores (Temporal-R1): only their groups have a gradient.

    A discrete score keeps a sample iff some but not all of its replies are correct. A continuous score keeps the
    fraction `top` with the largest standard deviation, separately for each set of scores that samples have (which tells
    apart types of questions), provided that their mean lies within `means`. One score is enough to keep a sample.
    """

    conflicts: ClassVar[Mapping[str | type, str]] = {
        "injected": "it drops the samples without a correct rollout, for which an injected truth is most useful"
    }

    discrete: tuple[str, ...] = (REWARD,)
    """Names of binary scores (correct or not); `reward` is the weighted sum of all scores."""
    continuous: tuple[str, ...] = ()
    """Scores on a scale, higher is better, such as an IoU."""
    top: float = Field(default=0.5, gt=0, le=1)
    """Largest fraction of the samples with the same scores that a continuous score keeps."""
    means: tuple[Bound, Bound] = (0.1, 0.9)
    """Bounds of a continuous score's mean over the replies: excludes hopeless and solved samples. .inf and -.inf: no
    bound."""

    @model_validator(mode="after")
    def _consistent(self) -> VarianceSelection:
        both = sorted(set(self.discrete) & set(self.continuous))
        if both or not self.names:
            raise ValueError(f"wanted each score once, as discrete or as continuous, found {both or 'none'}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.discrete, *self.continuous)

    def finalize(self, records: Sequence[SampleRecord]) -> Columns:
        """The column kept (1 or 0) for each record."""
        kept = {record.uid for record in records for name in self.discrete if self._is_mixed(record, name)}
        for name in self.continuous:
            by_scores: dict[tuple[str, ...], list[SampleRecord]] = {}
            for record in records:
                if f"std/{name}" in record.columns and not record.drop_reason:
                    scores = tuple(score for score in self.names if f"n/{score}" in record.columns)
                    by_scores.setdefault(scores, []).append(record)
            for comparable in by_scores.values():
                kept |= {record.uid for record in self._most_varied(comparable, name)}
        return {record.uid: {"kept": float(record.uid in kept)} for record in records}

    def _is_mixed(self, record: SampleRecord, name: str) -> bool:
        """Whether some but not all replies are correct."""
        right, n = record.columns.get(f"right/{name}", 0.0), record.columns.get(f"n/{name}", 0.0)
        return 1 <= right <= n - 1 and not record.drop_reason

    def _most_varied(self, records: Sequence[SampleRecord], name: str) -> list[SampleRecord]:
        """Up to the fraction `top` of `records`, by decreasing standard deviation of the score."""
        low, high = self.means
        candidates = [
            record
            for record in records
            if low <= record.columns[f"mean/{name}"] <= high and record.columns[f"std/{name}"] > ROUNDING
        ]
        # The sort is stable: ties go to the sample that comes first in the source.
        candidates.sort(key=lambda record: -record.columns[f"std/{name}"])
        return candidates[: round(self.top * len(records))]


class Difficulty(_ScoreSelector):
    """Curriculum: keep all samples that can be measured, ordered from easy (high mean score) to hard.

    Train on the result with data.order=manifest.
    """

    score: str = REWARD
    """The score whose mean over the replies measures how easy a sample is."""
    right: float | None = 1.0
    """Minimum score of a correct reply; only reported, the order does not depend on it."""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.score,)

    def finalize(self, records: Sequence[SampleRecord]) -> Columns:
        """The columns kept and order, 0 for the easiest. Samples to which the score does not apply are dropped."""
        name = f"mean/{self.score}"
        measured = [record for record in records if name in record.columns and not record.drop_reason]
        measured.sort(key=lambda record: -record.columns[name])
        columns = {record.uid: {"kept": 1.0, "order": float(i)} for i, record in enumerate(measured)}
        return {record.uid: columns.get(record.uid, {"kept": 0.0}) for record in records}


SELECTORS: Mapping[str, type[_ScoreSelector]] = {
    "rif": InstanceFilter,
    "variance": VarianceSelection,
    "difficulty": Difficulty,
}
"""The names that `select.by` accepts, besides a user's class as package.module:Class or file.py:Class."""


def _without_tokens(reply: Reply) -> Reply:
    """Drop token ids and per-token columns: verdicts do not need them, and recordings of whole datasets get large."""
    columns = {name: value for name, value in reply.columns.items() if isinstance(value, int | float)}
    return replace(reply, token_ids=None, columns=columns)
