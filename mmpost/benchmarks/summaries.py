"""The usual ways in which scores become metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmpost.benchmarks.benchmark import Metric, Numbers, Scored
from mmpost.types import Sample


def ratio(numerator: Numbers, denominator: Numbers) -> Numbers:
    """NaN where the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def averages(sums: Mapping[str, Numbers], binary: Callable[[str], bool] = lambda name: True) -> dict[str, Metric]:
    """A metric for each pair of sums "score/NAME" and "n/NAME", in the order of the sums."""
    names = [name.removeprefix("score/") for name in sums if name.startswith("score/")]
    return {
        name: Metric(ratio(sums[f"score/{name}"], sums[f"n/{name}"]), sums[f"n/{name}"], binary(name)) for name in names
    }


@dataclass(frozen=True)
class Overlaps:
    """The mean IoU ("miou"), where that is the score, and the share of questions with at least each of some IoUs
    ("r1@0.5", recall of the one prediction)."""

    levels: tuple[float, ...] = (0.3, 0.5, 0.7)

    def count(self, cluster: Sequence[Scored]) -> Mapping[str, float]:
        sums = {"score/miou": sum(scored.score for scored in cluster), "n/miou": float(len(cluster))}
        for level in self.levels:
            sums[f"score/r1@{level}"] = float(sum(scored.score >= level for scored in cluster))
            sums[f"n/r1@{level}"] = float(len(cluster))
        return sums

    def metrics(self, sums: Mapping[str, Numbers]) -> dict[str, Metric]:
        return averages(sums, binary=lambda name: name != "miou")


@dataclass(frozen=True)
class Mean:
    """The mean score, over all questions and over each group of them ("name/group")."""

    name: str = "accuracy"
    groups: Callable[[Sample], Iterable[str]] = lambda sample: sample.meta.get("groups", ())
    """The groups that a question is in; by default those in its meta `groups`."""
    binary: bool = True
    """Whether scores are 0 or 1."""

    def count(self, cluster: Sequence[Scored]) -> Mapping[str, float]:
        sums: dict[str, float] = {}
        for scored in cluster:
            for group in ("", *(f"/{group}" for group in self.groups(scored.sample))):
                sums[f"score{group}"] = sums.get(f"score{group}", 0.0) + scored.score
                sums[f"n{group}"] = sums.get(f"n{group}", 0.0) + 1
        return sums

    def metrics(self, sums: Mapping[str, Numbers]) -> dict[str, Metric]:
        groups = sorted(name.removeprefix("score") for name in sums if name.startswith("score"))
        return {
            f"{self.name}{group}": Metric(
                ratio(sums[f"score{group}"], sums[f"n{group}"]), sums[f"n{group}"], self.binary
            )
            for group in groups
        }


@dataclass(frozen=True)
class MacroMean:
    """The mean over groups of the mean score in each, whatever their sizes; each group ("accuracy/group"), and the mean
    over all questions ("micro")."""

    name: str = "accuracy"
    group: Callable[[Sample], str] = lambda sample: sample.meta["group"]
    """The group that a question is in."""

    def count(self, cluster: Sequence[Scored]) -> Mapping[str, float]:
        return Mean(self.name, lambda sample: [self.group(sample)]).count(cluster)

    def metrics(self, sums: Mapping[str, Numbers]) -> dict[str, Metric]:
        means = Mean(self.name).metrics(sums)
        micro = means.pop(self.name)
        return {self.name: Metric(mean_of(means.values()), micro.n), **means, "micro": micro}


def mean_of(metrics: Iterable[Metric]) -> Numbers:
    """The mean of metrics, in each resample of those that it has questions of; NaN of none."""
    values = np.stack([metric.value for metric in metrics])
    return ratio(np.nansum(values, axis=0), np.sum(~np.isnan(values), axis=0))
