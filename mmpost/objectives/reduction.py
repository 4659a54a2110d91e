"""How per-token losses become sums: each token's weight, and the count that the sum is divided by."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from mmpost.types import Batch


def lengths(batch: Batch, mask: Float[Tensor, " tok"]) -> Float[Tensor, " reply"]:
    """Trained tokens of each reply; 1 where there are none, so that it can be divided by."""
    total = batch.sum(mask)
    return total.masked_fill(total == 0, 1.0)


def reply_mean(batch: Batch, mask: Float[Tensor, " tok"]) -> Float[Tensor, " tok"]:
    """Weights that sum to 1 over the trained tokens of each reply."""
    return mask / lengths(batch, mask)[batch.reply_of]
