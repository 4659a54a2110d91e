"""Run benches; the numbers are the benches' own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from rich.table import Table

from mmpost.config.settings import EvalSettings
from mmpost.core import distributed
from mmpost.errors import ConfigError
from mmpost.metrics.bootstrap import bootstrap, confidence_interval
from mmpost.training.context import TrainingContext
from mmpost.types import Bench, Sample, Split

RESAMPLES = 300
"""Bootstrap resamples behind each interval."""

Estimate = dict[str, float]
"""value, n, low, high: a metric, its number of samples and its 95 % interval."""


class HasBenches(Protocol):
    """A task, or anything else with evaluations."""

    def benches(self, split: Split) -> list[Bench]: ...


def select_benches(
    task: HasBenches, evaluated: Mapping[str, HasBenches], settings: EvalSettings, split: Split
) -> list[Bench]:
    """The evaluations of a split: the task's own, or on the test split those of `eval.tasks` as "name/bench".

    `evaluated`: the tasks of `eval.tasks` by name. Raises ConfigError for a task without the benches that are named
    there, or without any.
    """
    if split != "test" or not evaluated:
        return task.benches(split)
    selected = []
    for name, other in evaluated.items():
        names = settings.tasks[name].benches
        benches = {bench.name: bench for bench in other.benches("test")}
        missing = sorted(set(names) - set(benches))
        if missing or not benches:
            available = ", ".join(benches) or "none: it wants data.test"
            raise ConfigError(
                f"evaluation of {name}: wanted the bench {missing or 'of its test split'}, found {available}"
            )
        selected += [replace(benches[b], name=f"{name}/{b}") for b in names or benches]
    return selected


def run_benches(
    job: TrainingContext,
    benches: Sequence[Bench],
    most: int = 0,
    seen: Callable[[str, Sequence[Sample]], None] | None = None,
) -> dict[str, Estimate]:
    """All metrics as "bench/metric", on at most `most` samples of each bench (0: all); `seen` gets the scored samples.

    Leaves no trace in the job: its log and its random numbers are as before. Every rank gets the result.
    """
    results: dict[str, Estimate] = {}
    for bench in benches:
        with job.isolated(f"eval/{bench.name}"):
            samples = _scored(job, bench, most)
        if seen is not None:
            seen(bench.name, samples)
        for name, score in intervals(bench.summary, samples).items():
            results[f"{bench.name}/{name}"] = score
    return results


def _scored(job: TrainingContext, bench: Bench, most: int) -> list[Sample]:
    count = min(most or len(bench.source), len(bench.source))
    samples = job.fetch(bench.source, range(distributed.rank(), count, distributed.world()))
    for transform in bench.transforms:
        samples = transform(samples, job)
    return [s for part in distributed.gather(samples) for s in part]


def intervals(
    summary: Callable[[Sequence[Sample]], Mapping[str, float]], samples: Sequence[Sample]
) -> dict[str, Estimate]:
    """Each metric with its 95 % percentile interval, from a bootstrap over samples with a fixed seed."""
    values = summary(samples)
    resampled = bootstrap(summary, [samples], RESAMPLES if len(samples) > 1 else 0)
    estimates = {}
    for name, value in values.items():
        if math.isnan(value):
            continue
        low, high = confidence_interval(resampled[name])
        if math.isnan(low):  # a single sample, or a metric that no resample has
            low, high = float(value), float(value)
        estimates[name] = {"value": value, "n": float(len(samples)), "low": low, "high": high}
    return estimates


def table(title: str, columns: Mapping[str, Mapping[str, Estimate]]) -> Table:
    """Scores side by side: value and 95 % interval."""
    out = Table(title=title, title_justify="left")
    out.add_column("metric")
    for name in columns:
        out.add_column(name or "value", justify="right")
    for metric in dict.fromkeys(m for scores in columns.values() for m in scores):
        cells = []
        for scores in columns.values():
            s = scores.get(metric)
            cells.append(f"{s['value']:.4g}  [dim]{s['low']:.4g} to {s['high']:.4g}" if s else "")
        out.add_row(metric, *cells)
    return out
