"""Adam with an L2 penalty, and the choice of an update by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch

from mmpost.config.settings import OptimSettings
from mmpost.updates.adamw import AdamWUpdate


class AdamUpdate(AdamWUpdate):
    """`torch.optim.Adam` (Kingma & Ba 2015, arXiv 1412.6980): weight decay is an L2 penalty, added to the gradient
    after clipping."""

    optimizer_class: ClassVar[Callable[..., torch.optim.Optimizer]] = torch.optim.Adam


UPDATES: Mapping[str, type[AdamWUpdate]] = {"adamw": AdamWUpdate, "adam": AdamUpdate}
"""Updates by `optim.name`."""


def named_update(optim: OptimSettings) -> AdamWUpdate:
    """The update that `optim.name` asks for."""
    return UPDATES[optim.name](optim)
