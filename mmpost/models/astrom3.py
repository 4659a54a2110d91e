"""The three encoders of AstroM3 at their published sizes, with random weights."""

from __future__ import annotations

from pathlib import Path

from mmpost.models.embedder import write_towers
from mmpost.models.tiny_astro import astro


def write_astrom3(folder: Path | str, seed: int = 0) -> None:
    """Write the model into `folder`."""
    write_towers(folder, astro(small=False), seed)
