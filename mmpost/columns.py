"""Replies to flat tensors: the reply space in which objectives work."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from mmpost.errors import ColumnError
from mmpost.types import Batch, Reply, Sample, Value


def reply_space(samples: Sequence[Sample], names: Collection[str], inputs: object = None) -> Batch:
    """All replies of `samples` as one batch with the columns `names`.

    A column is looked for on the reply, then on its sample; `mask` is 1 where nobody set it. A column is per token if
    any reply has a list for it. Raises ColumnError for a missing one, and where a list does not fit its reply.
    """
    rows = [(i, sample, reply) for i, sample in enumerate(samples) for reply in sample.replies]
    lengths = torch.tensor([len(reply.token_ids or ()) for _, _, reply in rows], dtype=torch.long)
    columns: dict[str, Tensor] = {}
    per_token = set()
    for name in names:
        values = [_value(sample, reply, name) for _, sample, reply in rows]
        if any(not isinstance(v, float) for v in values):
            per_token.add(name)
            flat = [v for value, (_, s, r) in zip(values, rows, strict=True) for v in _spread(value, s, r, name)]
            columns[name] = torch.tensor(flat, dtype=torch.float32)
        else:
            columns[name] = torch.tensor(values, dtype=torch.float32)
    return Batch(
        reply_of=torch.repeat_interleave(torch.arange(len(rows)), lengths),
        group_of=torch.tensor([i for i, _, _ in rows], dtype=torch.long),
        columns=columns,
        inputs=inputs,
        per_token=frozenset(per_token),
    )


def _value(sample: Sample, reply: Reply, name: str) -> Value:
    value = reply.columns.get(name, sample.columns.get(name, 1.0 if name == "mask" else None))
    if value is None:
        raise ColumnError(
            f"the objective reads the column {name!r}, but reply {sample.replies.index(reply)} of {sample.uid!r} "
            f"has only {sorted({*reply.columns, *sample.columns})}; add the transform that makes it "
            f"(`makes` of the classes in mmpost.transforms) to the stage"
        )
    return float(value) if isinstance(value, float | int) else value


def _spread(value: Value, sample: Sample, reply: Reply, name: str) -> Sequence[float]:
    length = len(reply.token_ids or ())
    if isinstance(value, float | int):
        return [float(value)] * length
    if len(value) != length:
        raise ColumnError(
            f"column {name!r} of sample {sample.uid!r} has {len(value)} numbers for a reply of {length} tokens"
        )
    return value
