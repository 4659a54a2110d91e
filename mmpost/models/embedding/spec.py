"""The specification of an embedding model, as its folder or a .yaml file holds it."""

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
    """The learnable scale of similarities, parametrized by its logarithm."""

    init: float = math.log(1 / 0.07)
    """Initial logarithm: open_clip ln(1/0.07), its SigLIP ln 10, AstroM3 ln 100."""
    shared: bool = False
    """Whether all pairs of modalities share one scale."""
    low: float = 0.0
    """Smallest logarithm."""
    high: float = math.log(100)
    """Largest logarithm."""
    clamp: Literal["after_step", "forward", "off"] = "after_step"
    """In place after each step (open_clip), or in the forward pass (AstroM3): outside, it then has no gradient."""
    bias: float | None = None
    """Initial value of a learnable bias for each scale (SigLIP: -10); None: no bias."""


class HeadSettings(Settings):
    """A linear classifier."""

    classes: int = Field(ge=2)
    """Number of classes."""
    modalities: tuple[str, ...] = Field(min_length=1)
    """The modalities that it reads."""
    pooling: Literal["features", "average", "concat"] = "features"
    """One modality's features before its projection, or the average or concatenation of normalized embeddings."""


class EmbeddingSpec(Settings):
    """Encoders, embedding space, similarity scale and classifier of an embedding model."""

    encoders: dict[str, dict[str, Any]]
    """By modality: {name: ENCODER, ...}, an encoder of mmpost.models.embedding.encoders and its fields."""
    dim: int = Field(default=512, ge=1)
    """Size of the space in which modalities are compared."""
    scale: ScaleSettings = ScaleSettings()
    """The scale of similarities."""
    head: HeadSettings | None = None
    """A classifier; the edit AddHead adds one."""


def read_spec(folder: str) -> dict[str, Any] | None:
    """The content of the folder's spec file; None for hub ids and folders of transformers.

    Raises ConfigError for a file that is not JSON.
    """
    file = Path(folder) / SPEC_FILE
    if not file.is_file():
        return None
    try:
        return upgrade_spec(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as e:
        raise ConfigError(f"{file}: wanted JSON, found something else ({e}); copy the folder again") from e
