"""Encoders of single media: one module each, found by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mmpost.config.settings import Settings


class Encoder(torch.nn.Module):
    """From decoded media to one vector each. A new one is a module of this package, or a file, with one such class.

    A sample's vector may depend on no other sample, or micro-batches would show. What is random must draw from torch's
    own generators, so that a micro-batch can be computed twice.
    """

    Fields: ClassVar[type[Settings]] = Settings
    """What a description of the model may set."""

    size: int
    """Length of the vectors."""
    cost: int = 1
    """How much of `compute.max_tokens_per_microbatch` one medium takes: positions that the encoder works on."""

    def __init__(self, fields: Settings, kind: str, folder: Path | None = None) -> None:
        """`folder`: where `save` wrote, with weights to come; None for a new one."""
        super().__init__()

    @property
    def options(self) -> Mapping[str, Any]:
        """Options with which media are opened for it (`Media.open`)."""
        return {}

    def collate(self, values: Sequence[Any]) -> dict[str, Tensor]:
        """Decoded media (of the kind "text": strings) as inputs of `forward`, on the host.

        Raises DataError for a value that it cannot take.
        """
        raise NotImplementedError

    def forward(self, **inputs: Tensor) -> Float[Tensor, "sample feature"]:
        raise NotImplementedError

    def fit(self, values: Sequence[Any]) -> None:
        """Take scales (means, standard deviations) from training data; nothing by default."""

    def save(self, folder: Path) -> Settings | None:
        """Write what is needed besides weights; returns fields that differ from those it was made with."""
        return None
