"""Standardization of numbers, fitted once on training data and saved with the weights."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class Scales(torch.nn.Module):
    """(x - mean) / std of each number; an unknown one (NaN) becomes 0, the mean."""

    mean: Tensor
    std: Tensor

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("std", torch.ones(numbers))

    def forward(self, x: Float[Tensor, "*axis number"]) -> Float[Tensor, "*axis number"]:
        return ((x - self.mean) / self.std).nan_to_num(0.0)

    def fit(self, x: Float[Tensor, "sample number"]) -> None:
        """Means and population standard deviations of known values; std is 1 where a number never varies."""
        known = ~x.isnan()
        count = known.sum(0).clamp(min=1)
        mean = x.nan_to_num(0.0).sum(0) / count
        square = ((x - mean).nan_to_num(0.0) ** 2).sum(0) / count
        self.mean.copy_(mean)
        self.std.copy_(torch.where(square > 0, square.sqrt(), torch.ones_like(square)))
