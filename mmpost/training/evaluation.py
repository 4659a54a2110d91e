"""Run benches, and estimate the uncertainty of their metrics. What is measured is up to the benches."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from rich.markup import escape
from rich.table import Table

from mmpost.config.settings import EvalSettings
from mmpost.core import distributed
from mmpost.core.display import visible
from mmpost.core.means import Mean
from mmpost.errors import ConfigError
from mmpost.metrics.bootstrap import bootstrap, confidence_interval
from mmpost.training import reference
from mmpost.training.context import TrainingContext
from mmpost.types import Bench, Sample, Split

RESAMPLES = 300
"""Bootstrap resamples behind each interval."""
NO_ROWS = "no rows, so nothing was measured; set data.test (or data.val) to a file with rows, or drop the evaluation"

Estimate = dict[str, float]
"""value, n, low, high: a metric, the number of samples behind it, and its 95 % confidence interval."""


class HasBenches(Protocol):
    """A task, or anything else that has benches."""

    def benches(self, split: Split) -> list[Bench]: ...


def select_benches(
    task: HasBenches, evaluated: Mapping[str, HasBenches], settings: EvalSettings, split: Split
) -> list[Bench]:
    """The benches of a split: those of the task, or, on the test split, those of `eval.tasks` as "name/bench".

    `evaluated`: the tasks of `eval.tasks` by name. Raises ConfigError for a task that lacks a bench named there, or
    that has none at all.
    """
    if split != "test" or not evaluated:
        return task.benches(split)
    selected = []
    for name, other in evaluated.items():
        names = settings.tasks[name].benches
        benches = {bench.name: bench for bench in other.benches("test")}
        missing = sorted(set(names) - set(benches))
        if missing or not benches:
            available = ", ".join(benches) or "none: set its data.test"
            raise ConfigError(
                f"evaluation of {name}: wanted the bench {missing or 'of its test split'}, found {available}"
            )
        selected += [replace(benches[b], name=f"{name}/{b}") for b in names or benches]
    return selected


def run_benches(
    context: TrainingContext,
    benches: Sequence[Bench],
    max_samples: int = 0,
    on_samples: Callable[[str, Sequence[Sample]], None] | None = None,
) -> dict[str, Estimate]:
    """Run benches on at most `max_samples` samples each (0: all); returns every metric, as "bench/metric".

    `on_samples` gets the name of each bench and its scored samples. Samples are divided among the ranks; every rank
    gets the result. The context's metrics and random numbers are as before, so evaluation does not change training.
    """
    results: dict[str, Estimate] = {}
    for bench in benches:
        if reference.needs_start([bench]) and reference.START not in context.snapshots:
            continue
        with context.isolated(f"eval/{bench.name}"):
            samples = _transformed_samples(context, bench, max_samples)
        if not samples and distributed.rank() == 0:
            print(f"mmpost: evaluation {visible(bench.name)}: {NO_ROWS}", file=sys.stderr)
        if on_samples is not None:
            on_samples(bench.name, samples)
        for name, estimate in (intervals(bench.summary, samples) if samples else {}).items():
            results[f"{bench.name}/{name}"] = estimate
    return results


def _transformed_samples(context: TrainingContext, bench: Bench, max_samples: int) -> list[Sample]:
    count = min(max_samples or len(bench.source), len(bench.source))
    samples = context.fetch(bench.source, range(distributed.rank(), count, distributed.world()))
    for transform in bench.transforms:
        samples = transform(samples, context)
    return [s for rank_samples in distributed.gather(samples) for s in rank_samples]


def intervals(
    summary: Callable[[Sequence[Sample]], Mapping[str, float]], samples: Sequence[Sample]
) -> dict[str, Estimate]:
    """Each metric with its 95 % percentile interval, from a bootstrap over samples with a fixed seed."""
    values = summary(samples)
    resampled = bootstrap(summary, samples, RESAMPLES if len(samples) > 1 else 0)
    estimates = {}
    for name, value in values.items():
        if math.isnan(value):
            continue
        low, high = confidence_interval(resampled[name])
        if math.isnan(low):  # a single sample, or a metric that no resample has
            low, high = float(value), float(value)
        # A mean over a group of the samples (one question type, say) has fewer behind it.
        n = min(value.count, len(samples)) if isinstance(value, Mean) else len(samples)
        estimates[name] = {"value": float(value), "n": float(n), "low": low, "high": high}
    return estimates


def table(title: str, columns: Mapping[str, Mapping[str, Estimate]]) -> Table:
    """A table of estimates, metrics in rows: value and 95 % interval. `columns`: estimates by heading."""
    out = Table(title=escape(visible(title)), title_justify="left")
    out.add_column("metric")
    for name in columns:
        out.add_column(escape(visible(name or "value")), justify="right")
    for metric in dict.fromkeys(m for estimates in columns.values() for m in estimates):
        cells = []
        for estimates in columns.values():
            e = estimates.get(metric)
            cells.append(f"{e['value']:.4g}  [dim]{e['low']:.4g} to {e['high']:.4g}" if e else "")
        out.add_row(escape(visible(metric)), *cells)
    if not out.rows:
        out.caption, out.caption_justify, out.min_width = NO_ROWS, "left", 60  # a readable width for the caption
    return out
