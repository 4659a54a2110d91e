"""A classification head on an embedding model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmpost.errors import ConfigError
from mmpost.types import EmbeddingModel, Model


@dataclass(frozen=True)
class AddHead:
    """Add a linear head with random weights; a no-op if the model has an identical head.

    Raises ConfigError for a model that does not embed media, such as a chat model.
    """

    classes: int
    """Number of outputs."""
    modalities: tuple[str, ...]
    """The modalities whose embeddings are its input."""
    pooling: Literal["features", "average", "concat"] = "features"
    """Input: one modality's features before the projection, or the mean or concatenation of normalized embeddings."""

    def __call__(self, model: Model) -> None:
        if not isinstance(model, EmbeddingModel):
            raise ConfigError(
                f"AddHead: wanted an embedding model, found {type(model).__name__}; use one, such as "
                "model=random-tiny-astro"
            )
        model.add_head(self.classes, self.modalities, self.pooling)
