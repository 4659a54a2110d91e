"""Measures of continual learning: forgetting and transfer from the accuracy matrix a_{t,k}, and their intervals.

`a[t][k]` is the accuracy on task k after training task t. The code counts both from 0, the formulas count from 1 and
write the base model's accuracy as a_{0,k}. All measures are means over tasks in the unit of the accuracy, where higher
is better. The literature has two measures of forgetting with opposite signs, so each states its sign.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from mmpost.metrics.bootstrap import RESAMPLES, Resampled, bootstrap_indices
from mmpost.types import Sample

Matrix = Sequence[Sequence[float]]

MEANINGS = {
    "AvgAcc": "mean over k of a_{T,k}: accuracy at the end, on all tasks",
    "FM": "mean over k < T of a_{T,k} - a_{k,k}: below 0 is forgetting, above 0 is backward transfer",
    "MaxForgetting": "mean over k < T of max_{t >= k} a_{t,k} - a_{T,k}: above 0 is forgetting, never below",
    "ForwardTransfer": "mean over k > 1 of a_{k-1,k} - a_{0,k}: above 0, earlier tasks help tasks not yet trained",
    "LearningAcc": "mean over k of a_{k,k}: accuracy on each task right after training it",
    "JointAcc": "AvgAcc of joint training on all tasks for as many steps: the reference for sequential training",
    "GeneralChange": "mean over the untrained evaluations of a_T - a_0: below 0 is forgetting of base abilities",
}


def average_accuracy(a: Matrix) -> float:
    """AvgAcc = (1/T) sum_k a_{T,k}."""
    return fmean(a[-1][: len(a)])


def fm(a: Matrix) -> float:
    """FM = 1/(T-1) sum_{k<T} (a_{T,k} - a_{k,k}); negative is forgetting (arXiv 2507.05386)."""
    return fmean(a[-1][k] - a[k][k] for k in range(len(a) - 1))


def max_forgetting(a: Matrix) -> float:
    """F = 1/(T-1) sum_{k<T} (max_{t>=k} a_{t,k} - a_{T,k}); positive is forgetting, never negative."""
    return fmean(max(row[k] for row in a[k:]) - a[-1][k] for k in range(len(a) - 1))


def forward_transfer(base: Sequence[float], a: Matrix) -> float:
    """1/(T-1) sum_{k>1} (a_{k-1,k} - a_{0,k}); positive is forward transfer."""
    return fmean(a[k - 1][k] - base[k] for k in range(1, len(a)))


def learning_accuracy(a: Matrix) -> float:
    """(1/T) sum_k a_{k,k}."""
    return fmean(row[k] for k, row in enumerate(a))


def measures(base: Sequence[float], a: Matrix, joint: Sequence[float] | None = None) -> dict[str, float]:
    """The measures of MEANINGS that apply.

    Columns beyond the tasks are evaluations of abilities that no task trains (GeneralChange); `joint` is the row of a
    model trained on all tasks jointly (JointAcc).
    """
    values = {
        "AvgAcc": average_accuracy(a),
        "FM": fm(a),
        "MaxForgetting": max_forgetting(a),
        "ForwardTransfer": forward_transfer(base, a),
        "LearningAcc": learning_accuracy(a),
    }
    if joint is not None:
        values["JointAcc"] = fmean(joint[: len(a)])
    if len(base) > len(a):
        values["GeneralChange"] = fmean(
            after - before for before, after in zip(base[len(a) :], a[-1][len(a) :], strict=True)
        )
    return values


def measures_and_matrix(base: Sequence[float], a: Matrix, joint: Sequence[float] | None = None) -> dict[str, float]:
    """The measures, and the matrix as "t/k" with t and k from 1 (base: "0/k", joint model: "joint/k")."""
    rows = {**{str(t): row for t, row in enumerate([base, *a])}, **({"joint": joint} if joint is not None else {})}
    matrix = {f"{t}/{k}": value for t, row in rows.items() for k, value in enumerate(row, 1)}
    return {**measures(base, a, joint), **matrix}


Scored = Sequence[Sequence[Sample]]
"""The scored samples of each evaluation, column by column."""

Accuracy = Callable[[Sequence[Sample]], float]


def accuracies(columns: Scored, metrics: Sequence[Accuracy], index: Sequence[Iterable[int]]) -> list[float]:
    """A row of the matrix: the accuracy of each column, on its samples at `index`."""
    return [
        metric([samples[i] for i in indices]) for samples, metric, indices in zip(columns, metrics, index, strict=True)
    ]


def resample_measures(
    base: Scored,
    seeds: Sequence[Sequence[Scored]],
    metrics: Sequence[Accuracy],
    joint: Sequence[Scored] = (),
    resamples: int = RESAMPLES,
) -> Resampled:
    """Hierarchical bootstrap of all numbers of `measures_and_matrix`, averaged over seeds.

    Each resample draws seeds and, for each column, samples, which are the same for every t and seed. Quantities of the
    same samples stay paired, also between arms, which have identical draws (`bootstrap_indices`).

    Args:
        base: the columns of the base model.
        seeds: for each seed, the columns after each task.
        metrics: the accuracy of each column.
        joint: for each seed the columns of the model trained on all tasks jointly; empty if there is none.
    """
    resampled: Resampled = {}
    for seed_indices, index in bootstrap_indices(len(seeds), [len(samples) for samples in base], resamples):
        base_row = accuracies(base, metrics, index)
        values: dict[int, Mapping[str, float]] = {}
        for seed in set(seed_indices):
            a = [accuracies(columns, metrics, index) for columns in seeds[seed]]
            joint_row = accuracies(joint[seed], metrics, index) if joint else None
            values[seed] = measures_and_matrix(base_row, a, joint_row)
        for name in values[seed_indices[0]]:
            resampled.setdefault(name, []).append(fmean(values[seed][name] for seed in seed_indices))
    return resampled
