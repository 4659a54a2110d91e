"""What learning one task after another comes to: closed forms over a_{t,k}, and their intervals.

`a[t][k]` is the accuracy on task k after training task t, both counted from 0 in the code; formulas count from 1, and
their a_{0,k} is the base's. All are means over tasks, in the unit of the accuracy, of which more is better.
Two measures of forgetting have opposite signs, so each says in its name or text which it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from mmpost.metrics.bootstrap import RESAMPLES, Drawn, draws
from mmpost.types import Sample

Matrix = Sequence[Sequence[float]]

MEANINGS = {
    "AvgAcc": "mean over k of a_{T,k}: accuracy at the end, on all tasks",
    "FM": "mean over k < T of a_{T,k} - a_{k,k}: below 0 is forgetting, above 0 is backward transfer",
    "MaxForgetting": "mean over k < T of max_{t >= k} a_{t,k} - a_{T,k}: above 0 is forgetting, never below",
    "ForwardTransfer": "mean over k > 1 of a_{k-1,k} - a_{0,k}: above 0, earlier tasks help one not yet trained",
    "LearningAcc": "mean over k of a_{k,k}: accuracy on each task right after training it",
    "JointAcc": "AvgAcc of training on all tasks at once, for as many steps: what learning in turn is held against",
    "GeneralChange": "mean over the untrained evaluations of a_T - a_0: below 0 is forgetting of what the base knew",
}


def average_accuracy(a: Matrix) -> float:
    """AvgAcc = (1/T) sum_k a_{T,k}."""
    return fmean(a[-1][: len(a)])


def fm(a: Matrix) -> float:
    """FM = 1/(T-1) sum_{k<T} (a_{T,k} - a_{k,k}); negative is forgetting (arXiv 2507.05386)."""
    return fmean(a[-1][k] - a[k][k] for k in range(len(a) - 1))


def max_forgetting(a: Matrix) -> float:
    """F = 1/(T-1) sum_{k<T} (max_{t>=k} a_{t,k} - a_{T,k}); positive is forgetting, it is never negative."""
    return fmean(max(row[k] for row in a[k:]) - a[-1][k] for k in range(len(a) - 1))


def forward_transfer(base: Sequence[float], a: Matrix) -> float:
    """1/(T-1) sum_{k>1} (a_{k-1,k} - a_{0,k}); positive: the tasks before it help one that is yet to be trained."""
    return fmean(a[k - 1][k] - base[k] for k in range(1, len(a)))


def learning_accuracy(a: Matrix) -> float:
    """(1/T) sum_k a_{k,k}."""
    return fmean(row[k] for k, row in enumerate(a))


def measures(base: Sequence[float], a: Matrix, joint: Sequence[float] | None = None) -> dict[str, float]:
    """All of MEANINGS that there is something for.

    Columns beyond the tasks are evaluations that nothing is trained for; `joint` is the row of a model that was trained
    on all tasks at once.
    """
    found = {
        "AvgAcc": average_accuracy(a),
        "FM": fm(a),
        "MaxForgetting": max_forgetting(a),
        "ForwardTransfer": forward_transfer(base, a),
        "LearningAcc": learning_accuracy(a),
    }
    if joint is not None:
        found["JointAcc"] = fmean(joint[: len(a)])
    if len(base) > len(a):
        found["GeneralChange"] = fmean(
            after - before for before, after in zip(base[len(a) :], a[-1][len(a) :], strict=True)
        )
    return found


def by_name(base: Sequence[float], a: Matrix, joint: Sequence[float] | None = None) -> dict[str, float]:
    """The measures, and the matrix as "t/k" with t and k from 1 (the base's row "0/k", that of `joint` "joint/k")."""
    rows = {**{str(t): row for t, row in enumerate([base, *a])}, **({"joint": joint} if joint is not None else {})}
    matrix = {f"{t}/{k}": value for t, row in rows.items() for k, value in enumerate(row, 1)}
    return {**measures(base, a, joint), **matrix}


Scored = Sequence[Sequence[Sample]]
"""The scored samples of each evaluation, column by column."""
Accuracy = Callable[[Sequence[Sample]], float]


def accuracies(columns: Scored, of: Sequence[Accuracy], index: Sequence[Iterable[int]]) -> list[float]:
    """A row of the matrix, on the samples at `index` of each column."""
    return [
        accuracy([samples[i] for i in chosen]) for samples, accuracy, chosen in zip(columns, of, index, strict=True)
    ]


def resampled(
    base: Scored,
    seeds: Sequence[Sequence[Scored]],
    of: Sequence[Accuracy],
    joint: Sequence[Scored] = (),
    resamples: int = RESAMPLES,
) -> Drawn:
    """Resamples of the means over seeds of all numbers of `by_name`.

    One resample draws seeds, and of each evaluation samples, the same for every t and seed: what is told apart on the
    same samples stays paired, also between arms (the draws follow from the numbers alone). `seeds` holds for each seed
    the columns after each task, `joint` for each seed those of the model trained on all at once, or nothing.
    """
    drawn: Drawn = {}
    for places, index in draws(len(seeds), [len(samples) for samples in base], resamples):
        start = accuracies(base, of, index)
        values: dict[int, Mapping[str, float]] = {}
        for place in set(places):
            a = [accuracies(columns, of, index) for columns in seeds[place]]
            values[place] = by_name(start, a, accuracies(joint[place], of, index) if joint else None)
        for name in values[places[0]]:
            drawn.setdefault(name, []).append(fmean(values[place][name] for place in places))
    return drawn
