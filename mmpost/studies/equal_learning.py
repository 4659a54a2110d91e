"""Two arms at equal learning: the gap in one metric where both have reached the same value of another.

At the end of training arms have learned unequally much, and who learns more forgets more. Here their paths from the
base are compared, at several rates and early checkpoints.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from mmpost.metrics.intervals import Measured
from mmpost.studies.cells import Runner
from mmpost.studies.results import Result
from mmpost.studies.study import Cell, Study, Variant, points

Curve = tuple[Float[np.ndarray, "checkpoint replicate"], Float[np.ndarray, "checkpoint replicate"]]
"""x and y of a run's checkpoints in order, as `mmpost.metrics.intervals.replicates`."""


def runs_at_every_rate(
    runner: Runner, study: Study, chosen: Mapping[Variant, Cell], seeds: Sequence[int]
) -> list[Result]:
    """The runs of variants at every point of the grid and at the chosen one, without those that failed.

    `chosen`: a cell of each variant with its chosen values.
    """
    cells = [
        study.cell(v.arm, values, seed, chosen[v].steps, level=v.level)
        for v in study.variants
        if v in chosen
        for values in [chosen[v].values, *(p for p in points(study.grid(v.arm)) if p != chosen[v].values)]
        for seed in seeds
    ]
    done = runner.run_from_starts([study.with_start(cell) for cell in cells])
    return [result for result in done if not result.failure]


def matched_gaps(study: Study, runs: Sequence[Result], seeds: Sequence[int]) -> dict[str, dict[str, Measured]]:
    """For each claim at equal learning its gap at each level; a level is missing where the arms do not overlap."""
    out: dict[str, dict[str, Measured]] = {}
    for name, claim in study.predict.items():
        for level in dict.fromkeys([claim.at, claim.control or claim.at]) if claim.matched else ():
            arms = [
                [
                    [
                        _curve(run, claim.matched, claim.metric)
                        for run in runs
                        if run.cell.variant == Variant(arm, level) and run.cell.seed == seed
                    ]
                    for seed in seeds
                ]
                for arm in (claim.arm, claim.against)
            ]
            if all(map(all, arms)) and (gap := matched_gap(*arms)) is not None:
                out.setdefault(name, {})[level] = gap
    return out


def _curve(result: Result, x: str, y: str) -> Curve:
    """Two metrics of a run's checkpoints."""
    curve = result.measured.curve
    return np.array([point.metrics[x] for point in curve]), np.array([point.metrics[y] for point in curve])


def matched_gap(first: Sequence[Sequence[Curve]], second: Sequence[Sequence[Curve]]) -> Measured | None:
    """The gap in y of two arms at equal x: at the highest x that both reach. None if some seed's ranges do not overlap.

    `first` and `second`: for each seed the curves of its runs, at several rates. Between two checkpoints of a run y is
    interpolated, never beyond them; of several runs that pass x the highest y counts.
    """
    rows = []
    for one, other in zip(first, second, strict=True):
        size = one[0][0].shape[1]
        gaps = [_gap_at_equal_x(one, other, replicate) for replicate in range(size)]
        if gaps[0] is None:
            return None
        rows.append([gaps[0] if gap is None else gap for gap in gaps])
    values = np.array(rows)
    return Measured(values[:, 0], values[:, 1:])


def _gap_at_equal_x(first: Sequence[Curve], second: Sequence[Curve], replicate: int) -> float | None:
    x = min(max(float(xs[:, replicate].max()) for xs, _ in curves) for curves in (first, second))
    one, other = (_highest(curves, replicate, x) for curves in (first, second))
    return None if one is None or other is None else one - other


def _highest(curves: Sequence[Curve], replicate: int, x: float) -> float | None:
    """The highest y at `x` of the runs that pass it."""
    found = []
    for xs, ys in curves:
        path = list(zip(xs[:, replicate].tolist(), ys[:, replicate].tolist(), strict=True))
        found += [y for at, y in path if at == x]
        for (x0, y0), (x1, y1) in itertools.pairwise(path):
            if min(x0, x1) < x < max(x0, x1):
                found.append(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
    return max(found, default=None)
