"""Weights that turn per-token losses into sums over replies."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from mmpost.types import Batch


def lengths(batch: Batch, mask: Float[Tensor, " tok"]) -> Float[Tensor, " reply"]:
    """The number of trained tokens of each reply, but 1 where it is 0: the result is a divisor."""
    total = batch.sum(mask)
    return total.masked_fill(total == 0, 1.0)


def reply_mean(batch: Batch, mask: Float[Tensor, " tok"]) -> Float[Tensor, " tok"]:
    """Token weights that sum to 1 over the trained tokens of each reply."""
    return mask / lengths(batch, mask)[batch.reply_of]
