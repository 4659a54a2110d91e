"""Confidence intervals of numbers over training seeds that were tested on the same samples.

Two things make such a mean uncertain: other seeds (and bases) would train other models, and other test samples would be
easier or harder for all of them. A bootstrap over three seeds sees too little of the former: it covers 77 to 88 % where
it says 95. Here the variance is s²/n of the n seeds plus that of the test samples, by a jackknife, with Satterthwaite's
degrees of freedom (1946, Biometrics Bulletin 2, 110); and no interval is narrower than the t interval of the seeds
alone, without which three seeds that differ much would still be covered in 92 % only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import special, stats

from mmpost.metrics.bootstrap import Summary
from mmpost.types import Sample

GROUPS = 64
"""Groups of samples that the jackknife leaves out in turn. A standard error from 64 is accurate to 9 %."""
NORMAL = 1e6
"""Degrees of freedom from which on t is normal; JSON has no infinity."""


@dataclass(frozen=True)
class Estimate:
    """A mean over training seeds, and where its uncertainty comes from."""

    seeds: tuple[float, ...]
    """The value of each seed."""
    sample_variance: float
    """Variance of the mean because of the test samples."""
    sample_df: float
    """Degrees of freedom of `sample_variance`."""

    @property
    def mean(self) -> float:
        return float(np.mean(self.seeds))

    @property
    def sd(self) -> float:
        """Standard deviation over seeds; NaN of a single one."""
        return float(np.std(self.seeds, ddof=1)) if len(self.seeds) > 1 else math.nan

    @property
    def parts(self) -> list[tuple[float, float]]:
        """Standard error of the mean, and its degrees of freedom: of everything, and of the seeds if there are several.

        The wider interval counts.
        """
        if len(self.seeds) == 1:
            return [(math.sqrt(self.sample_variance), self.sample_df)]
        n, samples = len(self.seeds), self.sample_variance
        seeds = self.sd**2 / n
        spread = seeds**2 / (n - 1) + (samples**2 / self.sample_df if self.sample_df else 0.0)
        df = min((seeds + samples) ** 2 / spread, NORMAL) if spread else NORMAL
        return [(math.sqrt(seeds + samples), df), (math.sqrt(seeds), n - 1.0)]

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The two-sided confidence interval of the mean."""
        half = max(se * float(special.stdtrit(df, (1 + level) / 2)) if se else 0.0 for se, df in self.parts)
        return self.mean - half, self.mean + half

    @property
    def p(self) -> float:
        """Two-sided p-value of the hypothesis that the mean is 0: below 0.05 where the 95 % interval excludes it."""
        if not self.mean:
            return 1.0
        return max(2 * float(special.stdtr(df, -abs(self.mean) / se)) if se else 0.0 for se, df in self.parts)

    def as_dict(self) -> dict[str, Any]:
        """What study.json has of it."""
        low, high = self.interval()
        sd = None if math.isnan(self.sd) else self.sd
        return {
            **{"seeds": list(self.seeds), "mean": self.mean, "low": low, "high": high},
            **{"sd": sd, "sample_se": math.sqrt(self.sample_variance), "df": self.parts[0][1]},
        }


@dataclass(frozen=True)
class Measured:
    """A number of each training seed, and the same without each group of the test samples.

    Measured differences stay paired: `a - b` subtracts seed by seed and group by group.
    """

    seeds: Float[np.ndarray, " seed"]
    without: Float[np.ndarray, "seed group"]

    def __sub__(self, other: Measured) -> Measured:
        return Measured(self.seeds - other.seeds, self.without - other.without)

    def estimate(self) -> Estimate:
        """The mean over seeds with its uncertainty.

        The samples' part is the delete-a-group jackknife of the mean over seeds, (G - 1)/G times the sum of squares
        over the G groups (Kott 2001, Journal of Official Statistics 17, 521).
        """
        groups = self.without.shape[1]
        mean = self.without.mean(axis=0)
        variance = (groups - 1) / groups * float(((mean - mean.mean()) ** 2).sum()) if groups > 1 else 0.0
        return Estimate(tuple(self.seeds.tolist()), variance, max(0.0, groups - 1.0))


def replicates(summary: Summary, samples: Sequence[Sample], groups: int = GROUPS) -> dict[str, list[float]]:
    """Each metric of the samples, followed by its values without each of at most `groups` groups of equal size, up to
    one.

    Args:
        summary: computes the metrics of a set of scored samples. They must be smooth in the weights of the samples, as
            means and ratios of sums are; a jackknife does not fit medians.
    """
    groups = min(groups, len(samples)) if len(samples) > 1 else 0
    whole = summary(samples)
    without = [summary([s for i, s in enumerate(samples) if i % groups != group]) for group in range(groups)]
    return {name: [float(v), *(float(metrics.get(name, v)) for metrics in without)] for name, v in whole.items()}


def stack(seeds: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, Measured]:
    """The `replicates` of several training seeds on the same samples, of each metric that all of them have."""
    names = [name for name in seeds[0] if all(name in metrics for metrics in seeds)]
    rows = {name: np.array([metrics[name] for metrics in seeds], dtype=float) for name in names}
    return {name: Measured(values[:, 0], values[:, 1:]) for name, values in rows.items()}


def rank_correlation(x: Sequence[Sequence[float]], y: Sequence[Sequence[float]]) -> list[float]:
    """Spearman's rank correlation of two metrics over runs, as `replicates`; `x` and `y` have those of each run.

    0 where a metric is the same in all runs.
    """
    ranks = (stats.rankdata(metric, axis=0).T for metric in (x, y))
    pairs = zip(*ranks, strict=True)
    return [0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(np.corrcoef(a, b)[0, 1]) for a, b in pairs]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979, Scandinavian Journal of Statistics 6, 65): whoever calls those below 0.05
    significant is wrong about any of them in at most 5 % of studies."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def power(gap: float, sd: float, sample_se: float, seeds: int, level: float = 0.05, groups: int = GROUPS) -> float:
    """The probability that a true `gap` is told from 0 (two-sided, at `level`).

    `sd`: of the gap over seeds; `sample_se`: its standard error because of the test samples.
    """
    variance = sd**2 / seeds + sample_se**2
    if not variance:
        return 1.0 if gap else level
    df = variance**2 / ((sd**2 / seeds) ** 2 / (seeds - 1) + sample_se**4 / (groups - 1))
    critical, shift = float(special.stdtrit(df, 1 - level / 2)), abs(gap) / math.sqrt(variance)
    # Of gaps of many standard errors scipy's noncentral t has no numbers: they are always seen, with the right sign.
    right, wrong = stats.nct.sf(critical, df, shift), stats.nct.cdf(-critical, df, shift)
    return float(np.nan_to_num(right, nan=1.0) + np.nan_to_num(wrong, nan=0.0))
