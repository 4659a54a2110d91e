"""Selection by a score's value alone: as many samples from each part of its range, whatever its distribution is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pydantic import Field, model_validator

from mmpost.config.settings import Settings
from mmpost.selection.selectors import ROUNDING
from mmpost.types import Context, Sample, SampleRecord, Selector


class FlatSelection(Selector, Settings):
    """Keeps `n` samples, evenly over the range of a sample column: equal numbers from each of `bins` equal parts of it.

    A part with fewer samples gives all that it has, and the others share what is missing. Samples outside of the range
    are dropped. Which samples of a part are kept is random, but depends on their uids and `seed` only. TRivia (arXiv
    2512.01248) selects pictures so, by the consistency of several readings.
    """

    column: str
    """The sample column, which an earlier transform of the stage wrote."""
    n: int = Field(default=0, ge=0)
    """How many samples to keep; 0: as many as there are with equal numbers from each part that has any."""
    low: float = 0.0
    """Samples below are dropped."""
    high: float = 1.0
    """Samples above are dropped."""
    bins: int = Field(default=10, ge=1)
    """Number of equal parts of [low, high]; the last one includes `high`."""
    seed: int = 0
    """Decides which samples of a part are kept."""

    @model_validator(mode="after")
    def _ordered(self) -> FlatSelection:
        if not self.low < self.high:
            raise ValueError(f"wanted low < high, found low={self.low} and high={self.high}")
        return self

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return samples

    def finalize(self, records: Sequence[SampleRecord]) -> dict[str, dict[str, float]]:
        """The column kept (1 or 0) for each record."""
        parts: dict[int, list[str]] = {}
        for record in records:
            value = record.columns.get(self.column)
            if (
                value is None
                or record.drop_reason
                or not -ROUNDING <= value - self.low <= self.high - self.low + ROUNDING
            ):
                continue
            part = int((value - self.low) / (self.high - self.low) * self.bins + ROUNDING)
            parts.setdefault(min(part, self.bins - 1), []).append(record.uid)
        ordered = [sorted(uids, key=self._random) for _, uids in sorted(parts.items())]
        sizes = [len(uids) for uids in ordered]
        counts = shares(sizes, self.n) if self.n else [min(sizes)] * len(sizes) if sizes else []
        kept = {uid for uids, count in zip(ordered, counts, strict=True) for uid in uids[:count]}
        return {record.uid: {"kept": float(record.uid in kept)} for record in records}

    def _random(self, uid: str) -> bytes:
        """A key that sorts uids in random order."""
        return hashlib.sha256(f"{self.seed}/{uid}".encode()).digest()


def shares(sizes: Sequence[int], total: int) -> list[int]:
    """How many to take of groups of these sizes, as evenly as they allow, so that the sum is `total` or all there are.

    >>> shares([1, 10, 10], 9)
    [1, 4, 4]
    """
    taken = [0] * len(sizes)
    left = min(total, sum(sizes))
    while left:
        open_groups = [i for i, size in enumerate(sizes) if taken[i] < size]
        each = max(1, left // len(open_groups))
        for i in open_groups:
            more = min(each, sizes[i] - taken[i], left)
            taken[i] += more
            left -= more
    return taken
