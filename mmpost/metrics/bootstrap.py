"""Intervals for a study: seeds are drawn again, and for each drawn seed the samples of its evaluation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

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
    drawn: Drawn = {name: [] for samples in seeds for name in summary(samples)}
    for places, (index,) in draws(len(seeds), [len(seeds[0])], resamples):
        values = {place: summary([seeds[place][i] for i in index]) for place in set(places)}
        for name, found in drawn.items():
            found.append(float(np.mean([values[place].get(name, math.nan) for place in places])))
    return drawn


def draws(
    seeds: int, sizes: Sequence[int], resamples: int = RESAMPLES
) -> Iterator[tuple[list[int], list[Int[np.ndarray, " sample"]]]]:
    """For each resample the places of the seeds drawn, and of each of several sets of samples those drawn."""
    generator = np.random.default_rng(0)
    for _ in range(resamples):
        places = generator.integers(seeds, size=seeds).tolist()
        yield places, [generator.integers(size, size=size) for size in sizes]


def interval(drawn: Sequence[float]) -> tuple[float, float]:
    """The middle 95 % of `drawn`, NaN left out."""
    known = [v for v in drawn if not math.isnan(v)]
    if not known:
        return math.nan, math.nan
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def scored(seeds: Sequence[float], drawn: Sequence[float]) -> dict[str, Any]:
    """A metric's entry in study.json: the value of each seed, their mean, and its interval."""
    low, high = interval(drawn)
    return {"seeds": list(seeds), "mean": statistics.mean(seeds), "low": low, "high": high}


def difference(drawn: Mapping[str, Sequence[float]], other: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """For each metric the mean and the interval of an arm less another, resample by resample."""
    found = {}
    for metric in drawn.keys() & other.keys():
        gaps = [a - b for a, b in zip(drawn[metric], other[metric], strict=True)]
        low, high = interval(gaps)
        found[metric] = {"mean": statistics.mean(gaps), "low": low, "high": high}
    return dict(sorted(found.items()))
