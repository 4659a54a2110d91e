"""Batches from ragged lists, and the loss that the trainer computes from sums and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmpost.types import Batch, Objective, Outputs

Rows = Sequence[Sequence[float]]


def batch(lengths: Sequence[int], dtype: torch.dtype = torch.float64, groups: Sequence[int] | None = None, **columns):
    """Replies of these lengths; a column is a list of numbers (per reply) or of lists (per token). `mask` is 1."""
    tensors: dict[str, Tensor] = {"mask": torch.ones(sum(lengths), dtype=dtype)}
    per_token = {"mask"}
    for name, values in columns.items():
        if values and not isinstance(values[0], int | float):
            per_token.add(name)
            assert [len(v) for v in values] == list(lengths), name
            values = [x for row in values for x in row]
        elif name == "mask":
            per_token.discard("mask")
        tensors[name] = torch.tensor(values, dtype=dtype)
    return Batch(
        reply_of=torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths, dtype=torch.long)),
        group_of=torch.tensor(groups if groups is not None else list(range(len(lengths))), dtype=torch.long),
        columns=tensors,
        per_token_columns=frozenset(per_token),
    )


def flat(rows: Rows, dtype: torch.dtype = torch.float64) -> Tensor:
    """A leaf tensor [tok] from one list per reply."""
    return torch.tensor([x for row in rows for x in row], dtype=dtype, requires_grad=True)


def total(objective: Objective, parts: Sequence[tuple[Batch, Outputs]]) -> Tensor:
    """The loss that the trainer minimizes: each term's sum divided by its count, over all micro-batches."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, float] = {}
    for micro, outputs in parts:
        for name, value in objective(outputs, micro).terms.items():
            sums[name] = sums[name] + value if name in sums else value
        for name, count in objective.counts(micro).items():
            counts[name] = counts.get(name, 0.0) + count
    assert sums.keys() == counts.keys()
    return torch.stack([value / (counts[name] or 1.0) for name, value in sums.items()]).sum()


def select(full_batch: Batch, replies: Sequence[int]) -> tuple[Batch, Tensor]:
    """The micro-batch of `replies` in this order, and the indices of its tokens in the full batch."""
    tokens = torch.cat(
        [(full_batch.reply_of == r).nonzero()[:, 0] for r in replies] or [torch.zeros(0, dtype=torch.long)]
    )
    index = torch.tensor(list(replies), dtype=torch.long)
    lengths = torch.tensor([int((full_batch.reply_of == r).sum()) for r in replies], dtype=torch.long)
    columns: Mapping[str, Tensor] = {
        name: column[tokens if name in full_batch.per_token_columns else index]
        for name, column in full_batch.columns.items()
    }
    micro = Batch(
        reply_of=torch.repeat_interleave(torch.arange(len(replies)), lengths),
        group_of=full_batch.group_of[index],
        columns=columns,
        per_token_columns=full_batch.per_token_columns,
    )
    return micro, tokens
