"""Random windows of long media. Only the position is sampled here; the window is cut when the medium is opened."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field

from mmpost.config.settings import Settings
from mmpost.types import Context, Part, Sample, Transform


class Crop(Transform, Settings):
    """Set the option "start" of each medium of `modality` to a random window position.

    Without this option, a medium is cropped to the middle window.
    """

    modality: str
    """Which media to crop."""
    length: int = Field(ge=1)
    """Length of the windows."""
    size: str = "epochs"
    """The entry of the medium's header that holds its length."""
    position: Literal["random", "released"] = "random"
    """random: uniform over all windows; released: over all but the last one, which AstroM3's released code leaves out,
    for comparisons with it."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        rng = context.rng(f"crop {self.modality}")
        return [replace(s, prompt=tuple(self._crop(p, rng) for p in s.prompt)) for s in samples]

    def _crop(self, part: Part, rng: torch.Generator) -> Part:
        if part.modality != self.modality:
            return part
        last_start = int(part.value.header()[self.size]) - self.length
        positions = max(last_start, 0) + (1 if self.position == "random" or last_start <= 0 else 0)
        start = int(torch.randint(positions, (1,), generator=rng))
        options = {**dict(part.value.options), "start": start}
        return replace(part, value=replace(part.value, options=tuple(sorted(options.items()))))
