"""An encoder of pulse waves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import mmpost as mp


class PulseFields(mp.Settings):
    """A small convolutional encoder."""

    channels: int = 8
    """Channels of the convolution, and size of the vectors."""


class Pulse(mp.Encoder):
    """One convolution over the wave, its magnitude averaged over time."""

    Fields = PulseFields

    def __init__(self, fields: PulseFields, modality: str, folder: Path | None = None) -> None:
        super().__init__(fields, modality, folder)
        self.size = fields.channels
        self.filter = torch.nn.Conv1d(1, fields.channels, kernel_size=9)

    def collate(self, values: Sequence[Any]) -> dict[str, Tensor]:
        waves = [np.asarray(value, np.float32) for value in values]
        if len({wave.shape for wave in waves}) != 1:
            raise mp.DataError(f"wanted waves of one length, found {sorted({w.shape for w in waves})}; resample them")
        return {"wave": torch.from_numpy(np.stack(waves))}

    def forward(self, wave: Float[Tensor, "sample point"]) -> Float[Tensor, "sample feature"]:
        return self.filter(wave[:, None]).abs().mean(-1)
