"""What a model of towers is made of, as its folder or a .yaml file says it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mmpost.config.renamed import upgrade_spec
from mmpost.config.settings import Settings
from mmpost.errors import ConfigError

SPEC_FILE = "mmpost_model.json"
"""In a model's folder: {"model": NAME, ...}, where mmpost.models.NAME has `open_model(folder, settings, compute)`."""


class ScaleSettings(Settings):
    """The learnable scale of similarities, kept as its logarithm."""

    init: float = math.log(1 / 0.07)
    """Logarithm of the first scale; open_clip ln(1/0.07), its SigLIP ln 10, AstroM3 ln 100."""
    shared: bool = False
    """One for all pairs of kinds, or one for each."""
    low: float = 0.0
    """Least logarithm."""
    high: float = math.log(100)
    """Largest logarithm."""
    clamp: Literal["after_step", "forward", "off"] = "after_step"
    """In place after each step (open_clip), or on the way out (AstroM3): once outside, no gradient brings it back."""
    bias: float | None = None
    """First value of a learnable bias for each scale, SigLIP's -10; None: there is none."""


class HeadSettings(Settings):
    """A linear classifier."""

    classes: int = Field(ge=2)
    """How many."""
    modalities: tuple[str, ...] = Field(min_length=1)
    """Of which kinds it reads."""
    pooling: Literal["features", "average", "concat"] = "features"
    """One kind's vectors before its projection, or the average or concatenation of normalised embeddings."""


class EmbeddingSpec(Settings):
    """What an embedding model is made of."""

    encoders: dict[str, dict[str, Any]]
    """By kind of medium: {name: ENCODER, ...}, an encoder of mmpost.models.embedding.encoders and its fields."""
    dim: int = Field(default=512, ge=1)
    """Of the space in which kinds are compared."""
    scale: ScaleSettings = ScaleSettings()
    """Of similarities."""
    head: HeadSettings | None = None
    """A classifier; the edit AddHead makes one."""


def read_spec(folder: str) -> dict[str, Any] | None:
    """What the folder says of itself; None for hub ids and folders of transformers."""
    file = Path(folder) / SPEC_FILE
    if not file.is_file():
        return None
    try:
        return upgrade_spec(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as e:
        raise ConfigError(f"{file}: wanted JSON, found something else ({e}); copy the folder again") from e
