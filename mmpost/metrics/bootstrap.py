"""Bootstrap confidence intervals: over the samples of one evaluation, or over training seeds and samples together."""

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
Resampled = dict[str, list[float]]
"""For each metric its value in every resample; NaN for resamples without the metric."""


def bootstrap(summary: Summary, seeds: Sequence[Sequence[Sample]], resamples: int = RESAMPLES) -> Resampled:
    """Hierarchical bootstrap of each metric's mean over seeds; with one seed, the ordinary bootstrap over samples.

    Each resample draws as many seeds and samples as there are, with replacement. All seeds (and all arms with as many
    seeds) are evaluated on the same samples, so they share one draw of samples: the sampling error of the test set does
    not average out over seeds, and differences between arms stay paired.

    Args:
        summary: computes the metrics of a set of scored samples.
        seeds: for each training seed the scored samples of its evaluation, in the same order for all seeds.
    """
    resampled: Resampled = {name: [] for samples in seeds for name in summary(samples)}
    for seed_indices, (index,) in bootstrap_indices(len(seeds), [len(seeds[0])], resamples):
        metrics = {seed: summary([seeds[seed][i] for i in index]) for seed in set(seed_indices)}
        for name, values in resampled.items():
            values.append(float(np.mean([metrics[seed].get(name, math.nan) for seed in seed_indices])))
    return resampled


def bootstrap_indices(
    seeds: int, sizes: Sequence[int], resamples: int = RESAMPLES
) -> Iterator[tuple[list[int], list[Int[np.ndarray, " sample"]]]]:
    """For each resample the sampled indices of seeds, and for each evaluation (of `sizes` samples) those of its
    samples.

    The generator is always seeded with 0, so arms with as many seeds and samples get the same draws and can be compared
    resample by resample. With a single seed its draw consumes no random numbers.
    """
    generator = np.random.default_rng(0)
    for _ in range(resamples):
        seed_indices = generator.integers(seeds, size=seeds).tolist()
        yield seed_indices, [generator.integers(size, size=size) for size in sizes]


def confidence_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % percentile interval of a metric's non-NaN resampled values; (NaN, NaN) if there are none."""
    finite = [value for value in values if not math.isnan(value)]
    if not finite:
        return math.nan, math.nan
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def summarize_seeds(seeds: Sequence[float], resampled: Sequence[float]) -> dict[str, Any]:
    """A metric as study.json stores it: the value of each seed, their mean, and the 95 % interval of the mean."""
    low, high = confidence_interval(resampled)
    return {"seeds": list(seeds), "mean": statistics.mean(seeds), "low": low, "high": high}


def paired_difference(
    resampled: Mapping[str, Sequence[float]], other: Mapping[str, Sequence[float]]
) -> dict[str, dict[str, float]]:
    """Mean and 95 % interval of the difference between two arms (first minus second) for each metric that both have.

    The arms must have been resampled with the same draws: the difference is taken resample by resample.
    """
    differences = {}
    for metric in sorted(resampled.keys() & other.keys()):
        gaps = [a - b for a, b in zip(resampled[metric], other[metric], strict=True)]
        low, high = confidence_interval(gaps)
        differences[metric] = {"mean": statistics.mean(gaps), "low": low, "high": high}
    return differences
