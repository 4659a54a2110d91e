"""Rows of numbers through a multilayer perceptron."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmpost.config.settings import Settings
from mmpost.errors import DataError
from mmpost.models.embedding.encoders import Encoder
from mmpost.models.embedding.encoders._scales import Scales


class MlpFields(Settings):
    """A multilayer perceptron over named numbers."""

    numbers: int = Field(default=34, ge=1)
    """Numbers in a row."""
    hidden: int = Field(default=512, ge=1)
    """Width of both layers, and of the output vector."""
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    """After each layer, in training."""
    options: dict[str, Any] = {}
    """Options with which media are opened as arrays [number], such as {names: [...]}."""


class Mlp(Encoder):
    """Twice linear, ReLU, dropout on standardized numbers, where NaN is unknown: AstroM3's encoder of metadata."""

    Fields = MlpFields

    def __init__(self, fields: MlpFields, modality: str, folder: Path | None = None) -> None:
        super().__init__(fields, modality, folder)
        self.fields, self.modality = fields, modality
        self.size = fields.hidden
        self.scales = Scales(fields.numbers)
        self.layers = torch.nn.Sequential(
            *(torch.nn.Linear(fields.numbers, fields.hidden), torch.nn.ReLU(), torch.nn.Dropout(fields.dropout)),
            *(torch.nn.Linear(fields.hidden, fields.hidden), torch.nn.ReLU(), torch.nn.Dropout(fields.dropout)),
        )

    @property
    def options(self) -> Mapping[str, Any]:
        return self.fields.options

    def collate(self, values: Sequence[Any]) -> dict[str, Tensor]:
        rows = [np.asarray(value, np.float32) for value in values]
        for row in rows:
            if row.shape != (self.fields.numbers,):
                raise DataError(
                    f"{self.modality}: wanted {self.fields.numbers} numbers, found an array of shape "
                    f"{list(row.shape)}; correct the row, or `numbers` and `options` of its encoder"
                )
        return {"x": torch.from_numpy(np.stack(rows))}

    def forward(self, x: Float[Tensor, "sample number"]) -> Float[Tensor, "sample feature"]:
        return self.layers(self.scales(x))

    def fit(self, values: Sequence[Any]) -> None:
        self.scales.fit(self.collate(values)["x"].to(self.scales.mean))
