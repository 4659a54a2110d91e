"""Mixtures: several sources as one, with user-defined weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mmpost.data.media.media import Media
from mmpost.data.sources.base import Indexed
from mmpost.errors import DataError
from mmpost.types import Sample


class Mix(Indexed):
    """A mixture with as many samples as its sources together; source j contributes a fraction of weights[j].

    The samples of each source are spread evenly, and the order depends only on sizes and weights. A source with a
    weight above its size repeats, one with a weight below it is only partly used; without weights each sample comes
    once. Uids are prefixed with the number of the source, and repeats get the suffixes ~1, ~2, ... Raises DataError for
    negative, non-finite or all-zero weights, and for empty sources with a weight.
    """

    name = "a mix"

    def __init__(self, sources: Sequence[Sequence[Sample]], weights: Sequence[float] | None = None) -> None:
        sizes = np.array([len(source) for source in sources])
        parts = sizes.astype(float) if weights is None else np.array(weights, float)
        if len(parts) != len(sources) or not (np.isfinite(parts).all() and (parts >= 0).all() and parts.sum() > 0):
            raise DataError(f"Wanted a weight of at least 0 for each of {len(sources)} sources, found {weights}.")
        empty = [j for j, size in enumerate(sizes) if not size and parts[j]]
        if empty:
            raise DataError(f"Wanted samples in every source that is mixed in, found none in number {empty[0] + 1}.")
        self.sources = sources
        exact = parts / parts.sum() * sizes.sum()
        counts = np.floor(exact).astype(int)
        # Largest remainder method: rounding down loses `short` samples, which go to the largest fractional parts.
        short = int(sizes.sum() - counts.sum())
        counts[np.argsort(counts - exact, kind="stable")[:short]] += 1
        # The k-th of n samples of a source is placed at the fraction (k + 1/2) / n of the mixture.
        places = np.concatenate([(np.arange(n) + 0.5) / max(n, 1) for n in counts])
        order = np.argsort(places, kind="stable")
        dtype = np.min_scalar_type(len(sources))
        self._source = np.repeat(np.arange(len(sources), dtype=dtype), counts)[order]
        self._number = np.concatenate([np.arange(n) for n in counts])[order]

    def __len__(self) -> int:
        return len(self._source)

    def where(self, index: int) -> str:
        """File and row of a sample; for a source without rows, the numbers of the source and of the sample in it."""
        source, number = int(self._source[index]), int(self._number[index]) % len(self.sources[self._source[index]])
        where = getattr(self.sources[source], "where", None)
        return where(number) if where else f"source {source + 1}, sample {number}"

    def medium(self, index: int, value: Any, modality: str) -> Media:
        """Resolve a medium as the sample's source does, which must read rows (`Rows.medium`)."""
        source: Any = self.sources[self._source[index]]
        return source.medium(int(self._number[index]) % len(source), value, modality)

    def sample(self, index: int) -> Sample:
        source = int(self._source[index])
        repeat, number = divmod(int(self._number[index]), len(self.sources[source]))
        sample = self.sources[source][number]
        return replace(sample, uid=f"{source + 1}/{sample.uid}" + (f"~{repeat}" if repeat else ""))
