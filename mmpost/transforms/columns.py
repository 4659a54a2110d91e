"""Read and write the columns of replies. Nothing is changed in place: writing returns new samples and replies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from mmpost.errors import ColumnError
from mmpost.types import Reply, Sample, Value


def reward(sample: Sample, reply: Reply) -> float | None:
    """The reply's reward; None if no reward applies to it (NaN). Raises ColumnError for a reply that was not scored."""
    return finite_or_none(number(sample, reply, "reward", "Score"))


def finite_or_none(value: float | None) -> float | None:
    """The value, with None for NaN."""
    return None if value is None or math.isnan(value) else value


def number(sample: Sample, reply: Reply, name: str, written_by: str) -> float:
    """The reply's value in the per-reply column `name`.

    Raises ColumnError if it has none or one per token; `written_by` names the transform that the message recommends.
    """
    value = reply.columns.get(name)
    if not isinstance(value, int | float):
        raise ColumnError(
            f"sample {sample.uid!r}: wanted one number per reply in column {name!r}, found {value!r}; put {written_by} "
            "before this transform"
        )
    return float(value)


def numbers(sample: Sample, reply: Reply, name: str, written_by: str) -> Sequence[float]:
    """The reply's values [tok] in the per-token column `name`.

    Raises ColumnError if it has none or one per reply; `written_by` names the transform that the message recommends.
    """
    value = reply.columns.get(name)
    if value is None or isinstance(value, int | float):
        raise ColumnError(
            f"sample {sample.uid!r}: wanted one number per token in column {name!r}, found {value!r}; put {written_by} "
            "before this transform"
        )
    return value


def token_mask(reply: Reply) -> list[float]:
    """The loss mask [tok] of the reply: its column `mask`, by default 1 for every token."""
    length = len(reply.token_ids or ())
    mask = reply.columns.get("mask", 1.0)
    return [float(mask)] * length if isinstance(mask, int | float) else list(mask)


def with_columns(reply: Reply, **columns: Value) -> Reply:
    """The reply with these columns added or replaced."""
    return replace(reply, columns={**reply.columns, **columns})


def with_column(sample: Sample, name: str, values: Sequence[Value]) -> Sample:
    """The sample with column `name` on its replies; `values` has one entry per reply."""
    return replace(
        sample, replies=tuple(with_columns(reply, **{name: v}) for reply, v in zip(sample.replies, values, strict=True))
    )


def map_replies(samples: Sequence[Sample], change: Callable[[Sample, Reply], Reply]) -> list[Sample]:
    """The samples with each reply replaced by `change(sample, reply)`."""
    return [replace(sample, replies=tuple(change(sample, reply) for reply in sample.replies)) for sample in samples]
