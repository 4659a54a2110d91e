"""Bootstrap confidence intervals over the samples of one evaluation; over seeds, see `mmpost.metrics.intervals`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mmpost.types import Sample

Summary = Callable[[Sequence[Sample]], Mapping[str, float]]


def bootstrap(summary: Summary, samples: Sequence[Sample], resamples: int) -> dict[str, list[float]]:
    """Each metric in every resample, which draws as many samples as there are, with replacement; NaN for resamples
    without the metric. The generator is always seeded with 0."""
    generator = np.random.default_rng(0)
    resampled: dict[str, list[float]] = {name: [] for name in summary(samples)}
    for _ in range(resamples):
        metrics = summary([samples[i] for i in generator.integers(len(samples), size=len(samples))])
        for name, values in resampled.items():
            values.append(float(metrics.get(name, math.nan)))
    return resampled


def confidence_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % percentile interval of a metric's non-NaN resampled values; (NaN, NaN) if there are none."""
    finite = [value for value in values if not math.isnan(value)]
    if not finite:
        return math.nan, math.nan
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)
