"""GalSpecNet: spectra through convolutions over wavelength."""

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


class GalSpecNetFields(Settings):
    """A 1-D convolutional network."""

    points: int = Field(default=2575, ge=1)
    """Wavelengths in a spectrum."""
    inputs: int = Field(default=3, ge=1)
    """Channels at each wavelength."""
    channels: tuple[int, ...] = (64, 64, 32, 32)
    """Output channels of each convolution; pooling follows all but the last."""
    pool: int = Field(default=4, ge=1)
    """Width and stride of pooling."""
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    """On the output vector, in training."""
    options: dict[str, Any] = {}
    """Options with which media are opened as arrays [channel, point], such as {grid: [...]}."""


class GalSpecNet(Encoder):
    """Convolutions of width 3 without padding, ReLU, max pooling, flattened: a (3, 2575) input gives 32 x 37 = 1184."""

    Fields = GalSpecNetFields

    def __init__(self, fields: GalSpecNetFields, modality: str, folder: Path | None = None) -> None:
        super().__init__(fields, modality, folder)
        self.fields, self.modality = fields, modality
        layers: list[torch.nn.Module] = []
        length = fields.points
        for i, (a, b) in enumerate(zip((fields.inputs, *fields.channels), fields.channels, strict=False)):
            layers += [torch.nn.Conv1d(a, b, 3), torch.nn.ReLU()]
            length -= 2
            if i < len(fields.channels) - 1:
                layers.append(torch.nn.MaxPool1d(fields.pool))
                length //= fields.pool
        if length < 1:
            raise DataError(f"{modality}: {fields.points} points are too few for {len(fields.channels)} convolutions")
        self.layers = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Dropout(fields.dropout))
        self.size, self.cost = fields.channels[-1] * length, -(-fields.points // 16)

    @property
    def options(self) -> Mapping[str, Any]:
        return self.fields.options

    def collate(self, values: Sequence[Any]) -> dict[str, Tensor]:
        shape = (self.fields.inputs, self.fields.points)
        spectra = [np.asarray(value, np.float32) for value in values]
        for spectrum in spectra:
            if spectrum.shape != shape:
                raise DataError(
                    f"{self.modality}: wanted an array [channel, point] of shape {list(shape)}, found "
                    f"{list(spectrum.shape)}; correct the medium, or `points`, `inputs` and `options` of its encoder"
                )
        return {"x": torch.from_numpy(np.stack(spectra))}

    def forward(self, x: Float[Tensor, "sample channel point"]) -> Float[Tensor, "sample feature"]:
        return self.layers(x)
