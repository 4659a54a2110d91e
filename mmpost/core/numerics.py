"""The precision in which losses and gradients are added up."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def at_least_fp32(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """bf16 and fp16 as fp32; what is fp32 or finer stays as it is, so that a float64 model is float64 throughout."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
