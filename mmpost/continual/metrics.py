"""What learning one task after another comes to: closed forms over a_{t,k}, and their intervals.

`a[t][k]` is the accuracy on task k after training task t, both counted from 0 in the code; formulas count from 1, and
their a_{0,k} is the base's. All are means over tasks, in the unit of the accuracy, of which more is better.
Two measures of forgetting have opposite signs, so each says in its name or text which it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from mmpost.compare.bootstrap import RESAMPLES, Drawn, draws
from mmpost.types import Sample

Matrix = Sequence[Sequence[float]]

MEANINGS = {
    "AvgAcc": "mean over k of a_{T,k}: accuracy at the end, on all tasks",
    "FM": "mean over k < T of a_{T,k} - a_{k,k}: below 0 is forgetting, above 0 is backward transfer",
    "MaxForgetting": "mean over k < T of max_{t >= k} a_{t,k} - a_{T,k}: above 0 is forgetting, never below",
    "ForwardTransfer": "mean over k > 1 of a_{k-1,k} - a_{0,k}: above 0, earlier tasks help one not yet trained",
    "LearningAcc": "mean over k of a_{k,k}: accuracy on each task right after training it",
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


def measures(base: Sequence[float], a: Matrix) -> dict[str, float]:
    """All of MEANINGS; columns beyond the tasks are evaluations that nothing is trained for, or there are none."""
    found = {
        "AvgAcc": average_accuracy(a),
        "FM": fm(a),
        "MaxForgetting": max_forgetting(a),
        "ForwardTransfer": forward_transfer(base, a),
        "LearningAcc": learning_accuracy(a),
    }
    if len(base) > len(a):
        found["GeneralChange"] = fmean(
            after - before for before, after in zip(base[len(a) :], a[-1][len(a) :], strict=True)
        )
    return found


Scored = Sequence[Sequence[Sample]]
"""The scored samples of each evaluation, column by column."""
Accuracy = Callable[[Sequence[Sample]], float]


def accuracies(columns: Scored, of: Sequence[Accuracy], index: Sequence[Iterable[int]]) -> list[float]:
    """A row of the matrix, on the samples at `index` of each column."""
    return [
        accuracy([samples[i] for i in chosen]) for samples, accuracy, chosen in zip(columns, of, index, strict=True)
    ]


def resampled(
    base: Scored, seeds: Sequence[Sequence[Scored]], of: Sequence[Accuracy], resamples: int = RESAMPLES
) -> Drawn:
    """Resamples of the means over seeds of all measures, and of the matrix as "t/k" (base: "0/k"), t and k from 1.

    One resample draws seeds, and of each evaluation samples, the same for every t and seed: what is told apart on the
    same samples stays paired, also between arms (the draws follow from the numbers alone). `seeds` holds for each seed
    the columns after each task.
    """
    drawn: Drawn = {}
    for places, index in draws(len(seeds), [len(samples) for samples in base], resamples):
        start = accuracies(base, of, index)
        values: dict[int, Mapping[str, float]] = {}
        for place in set(places):
            a = [accuracies(columns, of, index) for columns in seeds[place]]
            values[place] = {**flat(start, a), **measures(start, a)}
        for name in values[places[0]]:
            drawn.setdefault(name, []).append(fmean(values[place][name] for place in places))
    return drawn


def flat(base: Sequence[float], a: Matrix) -> dict[str, float]:
    """The matrix by name: "t/k"."""
    return {f"{t}/{k}": value for t, row in enumerate([base, *a]) for k, value in enumerate(row, 1)}
