"""Several sources as one, in shares that the user chooses."""

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
    """As many samples as the sources have together; source j gives weights[j] of them, evenly spread.

    Which sample an index means follows from the sizes and weights alone. A source whose share is more than it has
    begins again, one whose share is less is not used up; without weights each sample comes once. Uids are those of the
    sources behind the number of the source, with ~1, ~2, ... at repeats. Raises DataError for unfit weights.
    """

    name = "a mix"

    def __init__(self, sources: Sequence[Sequence[Sample]], weights: Sequence[float] | None = None) -> None:
        sizes = np.array([len(source) for source in sources])
        shares = sizes.astype(float) if weights is None else np.array(weights, float)
        if len(shares) != len(sources) or not (np.isfinite(shares).all() and (shares >= 0).all() and shares.sum() > 0):
            raise DataError(f"Wanted a weight of at least 0 for each of {len(sources)} sources, found {weights}.")
        empty = [j for j, size in enumerate(sizes) if not size and shares[j]]
        if empty:
            raise DataError(f"Wanted samples in every source that is mixed in, found none in number {empty[0] + 1}.")
        self.sources = sources
        exact = shares / shares.sum() * sizes.sum()
        counts = np.floor(exact).astype(int)
        short = int(sizes.sum() - counts.sum())
        counts[np.argsort(counts - exact, kind="stable")[:short]] += 1
        # The k-th of n samples of a source stands at (k + 1/2) / n of the way.
        places = np.concatenate([(np.arange(n) + 0.5) / max(n, 1) for n in counts])
        order = np.argsort(places, kind="stable")
        kind = np.min_scalar_type(len(sources))
        self._source = np.repeat(np.arange(len(sources), dtype=kind), counts)[order]
        self._number = np.concatenate([np.arange(n) for n in counts])[order]

    def __len__(self) -> int:
        return len(self._source)

    def where(self, index: int) -> str:
        """File and row of a sample; the number of its source and its own number where the source knows no rows."""
        source, number = int(self._source[index]), int(self._number[index]) % len(self.sources[self._source[index]])
        where = getattr(self.sources[source], "where", None)
        return where(number) if where else f"source {source + 1}, sample {number}"

    def medium(self, index: int, value: Any, kind: str) -> Media:
        """As that of the sample's source, which must be one of rows."""
        source: Any = self.sources[self._source[index]]
        return source.medium(int(self._number[index]) % len(source), value, kind)

    def sample(self, index: int) -> Sample:
        source = int(self._source[index])
        again, number = divmod(int(self._number[index]), len(self.sources[source]))
        sample = self.sources[source][number]
        return replace(sample, uid=f"{source + 1}/{sample.uid}" + (f"~{again}" if again else ""))
