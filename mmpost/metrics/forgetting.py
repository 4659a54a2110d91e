"""Measures of continual learning: forgetting and transfer from the accuracy matrix a_{t,k}, and their intervals.

`a[t][k]` is the accuracy on task k after training task t. The code counts both from 0, the formulas count from 1 and
write the base model's accuracy as a_{0,k}. All measures are means over tasks in the unit of the accuracy, where higher
is better. The literature has two measures of forgetting with opposite signs, so each states its sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from mmpost.metrics.intervals import Measured, stack

Matrix = Sequence[Sequence[float]]

Replicates = Sequence[Sequence[float]]
"""A row of the matrix: for each column `mmpost.metrics.intervals.replicates` of its accuracy, equally many."""

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


def measured(
    bases: Sequence[Replicates], seeds: Sequence[Sequence[Replicates]], joint: Sequence[Replicates] = ()
) -> dict[str, Measured]:
    """All numbers of `measures_and_matrix` for several training seeds, with the uncertainty of their samples.

    Args:
        bases: for each seed the accuracies of the model that it starts from, in every column.
        seeds: for each seed the accuracies after each task.
        joint: for each seed those of the model trained on all tasks jointly; empty if there is none.
    """
    rows = []
    for k, (base, tasks) in enumerate(zip(bases, seeds, strict=True)):
        after_joint = joint[k] if joint else None
        replicates = [
            measures_and_matrix(
                [column[i] for column in base],
                [[column[i] for column in row] for row in tasks],
                None if after_joint is None else [column[i] for column in after_joint],
            )
            for i in range(len(base[0]))
        ]
        rows.append({name: [values[name] for values in replicates] for name in replicates[0]})
    return stack(rows)
