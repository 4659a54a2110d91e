"""The precision in which losses and gradients are accumulated."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def at_least_fp32(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Upcast bf16 and fp16 to fp32. Wider types are kept, so that a float64 model computes in float64 throughout."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
