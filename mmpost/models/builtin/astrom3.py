"""AstroM3: three encoders at their published sizes, with random weights."""

from __future__ import annotations

from pathlib import Path

from mmpost.models.builtin.stars import stars_spec
from mmpost.models.embedding.model import write_model


def write_astrom3(folder: Path | str, seed: int = 0) -> None:
    """Write the model into `folder`."""
    write_model(folder, stars_spec(small=False), seed)
