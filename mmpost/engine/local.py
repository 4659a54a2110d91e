"""The in-process engine: data parallelism with gradients summed over the ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmpost.core import distributed
from mmpost.types import Update


class LocalEngine:
    """Backward passes and optimizer steps of a module that fits on one device."""

    def __init__(self, module: torch.nn.Module, update: Update) -> None:
        self.module, self.update = module, update

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self) -> Mapping[str, float]:
        """Sum the gradients over the ranks, then let the update step; returns its numbers for the log."""
        distributed.sum_gradients(p for p in self.module.parameters() if p.requires_grad)
        return self.update.step()
