"""Random windows of long media: where each begins is drawn, and goes with the medium until it is opened."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field

from mmpost.config.settings import Settings
from mmpost.types import Context, Part, Sample, Transform


class Crop(Transform, Settings):
    """Give each medium of `kind` the option "start", for a window of `length`; without it, a kind takes the middle one.

    "released" draws like the code that AstroM3 was published with, whose bounds leave out the last window; it is there
    to compare with.
    """

    modality: str
    """Of which media."""
    length: int = Field(ge=1)
    """How long the windows are."""
    size: str = "epochs"
    """What the medium's header calls its length."""
    position: Literal["random", "released"] = "random"
    """Every window, or every one but the last."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        rng = context.rng(f"crop {self.modality}")
        return [replace(s, prompt=tuple(self._cropped(p, rng) for p in s.prompt)) for s in samples]

    def _cropped(self, part: Part, rng: torch.Generator) -> Part:
        if part.modality != self.modality:
            return part
        room = int(part.value.header()[self.size]) - self.length
        starts = max(room, 0) + (1 if self.position == "random" or room <= 0 else 0)
        start = int(torch.randint(starts, (1,), generator=rng))
        options = {**dict(part.value.options), "start": start}
        return replace(part, value=replace(part.value, options=tuple(sorted(options.items()))))
