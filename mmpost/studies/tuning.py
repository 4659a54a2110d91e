"""Choosing values for the arms of a study: each arm tries its own grid, on val, with seeds of its own."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from mmpost.studies.cells import Runner
from mmpost.studies.study import Study, begun, cell, grid


def tune(
    runner: Runner, studies: Mapping[str, Study], steps: Mapping[str, int], best: Mapping[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """For each arm the points of its grid: `values`, and the metric `best` on val (mean over `seeds`).

    `studies` holds for each arm the study that describes it. A grid of one point is not tried.
    """
    points = {arm: grid(study, arm) for arm, study in studies.items()}
    wanted = [
        begun(studies[arm], cell(studies[arm], arm, values, seed, steps[arm], tuning=True))
        for arm, tried in points.items()
        if len(tried) > 1
        for values in tried
        for seed in range(studies[arm].tune_seeds)
    ]
    done = iter(runner.after(wanted))
    found: dict[str, list[dict[str, Any]]] = {}
    for arm, tried in points.items():
        seeds = range(studies[arm].tune_seeds if len(tried) > 1 else 0)
        vals = [[next(done).val(best[arm]) for _ in seeds] for _ in tried]
        found[arm] = [
            {"values": values, "val": statistics.mean(v) if v else 0.0, "seeds": v}
            for values, v in zip(tried, vals, strict=True)
        ]
    return found


def taken(tuned: Mapping[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """The values of each arm's best point."""
    return {arm: max(tried, key=lambda point: point["val"])["values"] for arm, tried in tuned.items()}
