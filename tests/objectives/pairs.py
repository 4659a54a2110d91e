"""Pairs in reply space, from tables of log-probs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmpost.objectives.preference import Preference
from mmpost.types import Batch, Outputs
from tests.objectives.pair_oracle import Tables
from tests.objectives.ragged import batch, total


def ours(made: Tables, objective: Preference) -> tuple[Batch, Outputs]:
    """Each pair as a group of two replies."""

    def column(values: Tensor) -> list[list[float]]:
        return [row[m].tolist() for row, m in zip(values.flatten(0, 1), made.there.flatten(0, 1), strict=True)]

    lengths = [n for pair in made.lengths for n in pair]
    columns = {"ref_logp": column(made.ref)} if objective.reference else {}
    whole = batch(
        lengths,
        made.logp.dtype,
        groups=[i // 2 for i in range(len(lengths))],
        chosen=[1.0, 0.0] * len(made.lengths),
        **columns,
    )
    return whole, Outputs(logp=made.logp[made.there], sum_p2=made.sum_p2[made.there])


def loss(objective: Preference, made: Tables) -> Tensor:
    """What the trainer minimises."""
    return total(objective, [ours(made, objective)])


def fixture(
    logp: tuple[float, float] = (-12.0, -20.0),
    ref: tuple[float, float] = (-13.0, -18.0),
    lengths: tuple[int, int] = (6, 8),
) -> Tables:
    """One pair with these log-probs of whole replies, spread evenly over their tokens."""
    width = max(lengths)

    def spread(sums: Sequence[float]) -> Tensor:
        rows = [[s / n] * n + [0.0] * (width - n) for s, n in zip(sums, lengths, strict=True)]
        return torch.tensor([rows], dtype=torch.float64)

    return Tables(spread(logp).requires_grad_(), spread(ref), torch.ones(1, 2, width).double(), [list(lengths)])
