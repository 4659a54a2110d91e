"""Reading and writing columns of replies; nothing is changed in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from mmpost.errors import ColumnError
from mmpost.types import Reply, Sample, Value


def reward(sample: Sample, reply: Reply) -> float | None:
    """The reply's reward; None where no reward applied to it (NaN). Raises ColumnError if nobody scored it."""
    return finite_or_none(number(sample, reply, "reward", "Score"))


def finite_or_none(value: float | None) -> float | None:
    """The number, or None for NaN."""
    return None if value is None or math.isnan(value) else value


def number(sample: Sample, reply: Reply, name: str, maker: str) -> float:
    """A column with one number per reply; `maker` is the transform that writes it."""
    value = reply.columns.get(name)
    if not isinstance(value, int | float):
        raise ColumnError(
            f"a reply of sample {sample.uid!r} needs one number in column {name!r} and has {value!r}; "
            f"put {maker} before"
        )
    return float(value)


def numbers(sample: Sample, reply: Reply, name: str, maker: str) -> Sequence[float]:
    """A column with one number per token; `maker` is the transform that writes it."""
    value = reply.columns.get(name)
    if value is None or isinstance(value, int | float):
        raise ColumnError(
            f"a reply of sample {sample.uid!r} needs a number per token in column {name!r} and has {value!r}; "
            f"put {maker} before"
        )
    return value


def token_mask(reply: Reply) -> list[float]:
    """The mask of each token of the reply: 1 where nobody set it."""
    length = len(reply.token_ids or ())
    mask = reply.columns.get("mask", 1.0)
    return [float(mask)] * length if isinstance(mask, int | float) else list(mask)


def with_columns(reply: Reply, **columns: Value) -> Reply:
    """The reply with these columns."""
    return replace(reply, columns={**reply.columns, **columns})


def with_column(sample: Sample, name: str, values: Sequence[Value]) -> Sample:
    """The sample with one value of column `name` for each of its replies."""
    return replace(
        sample, replies=tuple(with_columns(reply, **{name: v}) for reply, v in zip(sample.replies, values, strict=True))
    )


def map_replies(samples: Sequence[Sample], change: Callable[[Sample, Reply], Reply]) -> list[Sample]:
    """The samples with `change` applied to each reply."""
    return [replace(sample, replies=tuple(change(sample, reply) for reply in sample.replies)) for sample in samples]
