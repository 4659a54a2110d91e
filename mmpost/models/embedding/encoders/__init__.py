"""Encoders of one modality each: a module of this package per encoder, which its name selects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mmpost.config.settings import Settings


class Encoder(torch.nn.Module, ABC):
    """From decoded media to one vector each. To add one, write a module in this package, or a file, with one subclass.

    A sample's vector must not depend on other samples, or results would depend on micro-batches. Random operations must
    use torch's default generators, so that a micro-batch can be computed twice with the same outcome (GradCache).
    """

    Fields: ClassVar[type[Settings]] = Settings
    """The settings that a model's spec may hold for this encoder."""

    size: int
    """Size of the vectors."""
    cost: int = 1
    """Positions that the encoder computes for one medium, which count towards `compute.max_tokens_per_microbatch`."""

    def __init__(self, fields: Settings, modality: str, folder: Path | None = None) -> None:
        """`folder`: where `save` wrote, and weights will be loaded afterwards; None for a new encoder."""
        super().__init__()

    @property
    def options(self) -> Mapping[str, Any]:
        """Options with which its media are opened (`Media.open`)."""
        return {}

    @abstractmethod
    def collate(self, values: Sequence[Any]) -> dict[str, Tensor]:
        """Decoded media (strings for modality "text") as keyword arguments of `forward`, on the CPU.

        Raises DataError for a value that it cannot take.
        """

    @abstractmethod
    def forward(self, **inputs: Tensor) -> Float[Tensor, "sample feature"]:
        """One vector for each sample."""

    def fit(self, values: Sequence[Any]) -> None:
        """Fit standardization (means, standard deviations) to training data; does nothing by default."""

    def save(self, folder: Path) -> Settings | None:
        """Write what loading needs besides weights; returns the fields to save, None for those it was made with."""
        return None
