"""Means of named values, for summaries of evaluations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmpost.core.samples import Sample


def values_by_name(pairs: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    """The values of each name, names and values in the order of their first appearance."""
    values: dict[str, list[float]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return values


class Mean(float):
    """A mean that knows how many values are behind it."""

    count: int

    def __new__(cls, values: Sequence[float], scale: float = 1.0) -> Mean:
        # Scaling before dividing rounds only once: 100 * 7 / 25 is 28, but 100 * (7 / 25) is not.
        mean = super().__new__(cls, scale * sum(values) / len(values))
        mean.count = len(values)
        return mean


def mean_by(pairs: Iterable[tuple[str, float]], scale: float = 1.0) -> dict[str, float]:
    """`scale` times the mean of each name's values; scale=100 turns fractions into percent. Each is a `Mean`.

    A name without values is left out, never 0 or NaN.
    """
    return {name: Mean(values, scale) for name, values in values_by_name(pairs).items()}


def mean_scores(samples: Sequence[Sample], names: Sequence[str], scale: float = 1.0) -> dict[str, float]:
    """`mean_by` of these scores of all replies; a reply without a score does not count for it."""
    replies = (reply for sample in samples for reply in sample.replies)
    return mean_by(((name, reply.scores[name]) for reply in replies for name in names if name in reply.scores), scale)
