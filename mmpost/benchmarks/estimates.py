"""Metrics of an evaluation with 95 % intervals: Wilson's for shares of independent questions, else a cluster bootstrap.

The bootstrap draws clusters (pictures, videos) and not questions, which share them. It works on sums: a resample is a
vector of how often each cluster was drawn, so that all resamples are one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy import special

from mmpost.benchmarks.benchmark import Metric, Scored, Summary

DRAWS = 2000
"""Resamples behind an interval."""
CELLS = 1 << 24
"""Largest number of elements of the matrix of draws that exists at a time."""


def estimates(summary: Summary, clusters: Iterable[Sequence[Scored]]) -> dict[str, dict[str, float]]:
    """Each metric with "value", "n", "low" and "high". Metrics without a question behind them are left out."""
    groups = list(clusters)
    metrics = resampled(summary, groups)
    return {
        name: _estimate(metric, len(groups), independent=all(len(group) == 1 for group in groups))
        for name, metric in metrics.items()
        if metric.n[0] > 0 and not math.isnan(metric.value[0])
    }


def resampled(summary: Summary, clusters: Sequence[Sequence[Scored]]) -> dict[str, Metric]:
    """The metrics of all clusters, followed by those of `DRAWS` resamples of them; {} of none."""
    counts = [summary.count(cluster) for cluster in clusters]
    return summary.metrics(_sums(counts)) if counts else {}


def _sums(counts: Sequence[Mapping[str, float]]) -> dict[str, Float[np.ndarray, " draw"]]:
    """Each sum over all clusters, followed by those over resamples of them; the generator is seeded with 0."""
    names = list(dict.fromkeys(name for count in counts for name in count))
    matrix = np.array([[count.get(name, 0.0) for name in names] for count in counts])
    sums = np.empty((1 + DRAWS, len(names)))
    sums[0] = matrix.sum(0)
    generator, size = np.random.default_rng(0), len(counts)
    step = max(1, CELLS // size)
    for start in range(1, 1 + DRAWS, step):
        drawn = generator.integers(size, size=(min(step, 1 + DRAWS - start), size))
        times = np.stack([np.bincount(row, minlength=size) for row in drawn])
        sums[start : start + len(times)] = times.astype(float) @ matrix
    return dict(zip(names, sums.T, strict=True))


def _estimate(metric: Metric, clusters: int, independent: bool) -> dict[str, float]:
    value, n = float(metric.value[0]), float(metric.n[0])
    if metric.is_share and (independent or value in (0.0, 1.0)):
        # Where all are alike, resamples are alike, too, and say nothing; there are as many trials as clusters, at most.
        low, high = wilson(value, n if independent else min(n, clusters))
    else:
        finite = metric.value[1:][np.isfinite(metric.value[1:])]
        low, high = map(float, np.percentile(finite, [2.5, 97.5])) if len(finite) else (value, value)
    return {"value": value, "n": n, "low": low, "high": high}


def wilson(share: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """The score interval of a share of `n` independent trials (Wilson 1927, JASA 22, 209)."""
    z2 = float(special.ndtri((1 + level) / 2)) ** 2
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, center - half), min(1.0, center + half)
