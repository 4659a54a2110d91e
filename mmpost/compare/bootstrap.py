"""Intervals for a study: seeds are drawn again, and for each drawn seed the samples of its evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mmpost.types import Sample

RESAMPLES = 1000

Summary = Callable[[Sequence[Sample]], Mapping[str, float]]
Drawn = dict[str, list[float]]
"""By metric, the value of each resample; NaN where a resample lacks the metric."""


def hierarchical(summary: Summary, seeds: Sequence[Sequence[Sample]], resamples: int = RESAMPLES) -> Drawn:
    """Resampled means over seeds of each metric; `seeds` holds the scored samples of each seed's run, in one order.

    One resample draws as many seeds as there are, with replacement, and as many samples as there are, with
    replacement. All seeds (and, with the same number of them, all arms) are evaluated on the same samples, so one draw
    of samples serves them all: their luck does not average out, and differences between arms stay paired.
    """
    generator = np.random.default_rng(0)
    drawn: Drawn = {name: [] for samples in seeds for name in summary(samples)}
    for _ in range(resamples):
        places = generator.integers(len(seeds), size=len(seeds)).tolist()
        index = generator.integers(len(seeds[0]), size=len(seeds[0]))
        values = {place: summary([seeds[place][i] for i in index]) for place in set(places)}
        for name, found in drawn.items():
            found.append(float(np.mean([values[place].get(name, math.nan) for place in places])))
    return drawn


def interval(drawn: Sequence[float]) -> tuple[float, float]:
    """The middle 95 % of `drawn`, NaN left out."""
    known = [v for v in drawn if not math.isnan(v)]
    if not known:
        return math.nan, math.nan
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)
