"""Batches of preference pairs from tables of log-probs, and their loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmpost.objectives.preference import Preference
from mmpost.types import Batch, Outputs
from tests.objectives.pair_oracle import Tables
from tests.objectives.ragged import batch, total


def as_batch(pair_tables: Tables, objective: Preference) -> tuple[Batch, Outputs]:
    """Batch and outputs, each pair as a group of two replies."""

    def column(values: Tensor) -> list[list[float]]:
        return [row[m].tolist() for row, m in zip(values.flatten(0, 1), pair_tables.present.flatten(0, 1), strict=True)]

    lengths = [n for pair in pair_tables.lengths for n in pair]
    columns = {"ref_logp": column(pair_tables.ref)} if objective.reference else {}
    pair_batch = batch(
        lengths,
        pair_tables.logp.dtype,
        groups=[i // 2 for i in range(len(lengths))],
        chosen=[1.0, 0.0] * len(pair_tables.lengths),
        **columns,
    )
    return pair_batch, Outputs(
        logp=pair_tables.logp[pair_tables.present], sum_p2=pair_tables.sum_p2[pair_tables.present]
    )


def loss(objective: Preference, pair_tables: Tables) -> Tensor:
    """The loss that the trainer minimizes."""
    return total(objective, [as_batch(pair_tables, objective)])


def example_pair(
    logp: tuple[float, float] = (-12.0, -20.0),
    ref: tuple[float, float] = (-13.0, -18.0),
    lengths: tuple[int, int] = (6, 8),
) -> Tables:
    """One pair with these reply log-probs, spread evenly over the tokens."""
    width = max(lengths)

    def spread(sums: Sequence[float]) -> Tensor:
        rows = [[s / n] * n + [0.0] * (width - n) for s, n in zip(sums, lengths, strict=True)]
        return torch.tensor([rows], dtype=torch.float64)

    return Tables(spread(logp).requires_grad_(), spread(ref), torch.ones(1, 2, width).double(), [list(lengths)])
