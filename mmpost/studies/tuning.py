"""Tuning: every arm of a study on the same grid, by its metric on val."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from mmpost.studies.cells import Runner
from mmpost.studies.study import PILOT_SEED, Study, Variant, points, widened

Tuned = dict[str, Any]
"""Of a variant: "chosen", the best values, and "tuning", all points with "values", their mean metric "val" and the one
of each of the "seeds"."""


def tune(
    runner: Runner,
    studies: Mapping[Variant, Study],
    steps: Mapping[Variant, int],
    metrics: Mapping[Variant, str],
    pilot: bool = False,
) -> dict[Variant, Tuned]:
    """Tune each variant on its arm's grid by its metric on val (`Result.val_metric`), averaged over `tune_seeds` runs.

    A grid is extended while the best point lies at an edge, at most `Study.widen` times; one of a single point is not
    trained. `studies`, `steps` and `metrics` have an entry for each variant.
    """
    grids = {variant: study.grid(variant.arm) for variant, study in studies.items()}
    found: dict[Variant, dict[tuple[float, ...], list[float]]] = {variant: {} for variant in grids}
    for extensions in range(1 + max(study.widen for study in studies.values())):
        wanted = [
            (variant, values)
            for variant, grid in grids.items()
            for values in points(grid)
            if len(points(grid)) > 1 and tuple(values.values()) not in found[variant]
        ]
        if not wanted:
            break
        pairs = [
            studies[v].with_start(studies[v].cell(v.arm, values, seed, steps[v], tuning=True, level=v.level))
            for v, values in wanted
            for seed in (PILOT_SEED * pilot + k for k in range(studies[v].tune_seeds))
        ]
        done = iter(runner.run_from_starts(pairs))
        for variant, values in wanted:
            seeds = [next(done).val_metric(metrics[variant]) for _ in range(studies[variant].tune_seeds)]
            found[variant][tuple(values.values())] = seeds
        grids = {
            variant: widened(grid, dict(zip(grid, _best(found[variant]), strict=True)))
            if found[variant] and extensions < studies[variant].widen
            else grid
            for variant, grid in grids.items()
        }
    return {variant: _tuned(studies[variant].grid(variant.arm), values) for variant, values in found.items()}


def _best(found: Mapping[tuple[float, ...], Sequence[float]]) -> tuple[float, ...]:
    return max(found, key=lambda values: statistics.mean(found[values]))


def _tuned(grid: Mapping[str, Sequence[float]], found: Mapping[tuple[float, ...], Sequence[float]]) -> Tuned:
    """The entry of a variant; a grid of a single point has no runs."""
    if not found:
        (values,) = points(grid)
        return {"chosen": values, "tuning": [{"values": values, "val": 0.0, "seeds": []}]}
    tried = [
        {"values": dict(zip(grid, point, strict=True)), "val": statistics.mean(seeds), "seeds": list(seeds)}
        for point, seeds in sorted(found.items())
    ]
    return {"chosen": dict(zip(grid, _best(found), strict=True)), "tuning": tried}
