"""A classifier on top of a model that embeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmpost.errors import ConfigError
from mmpost.types import EmbeddingModel, Model


@dataclass(frozen=True)
class AddHead:
    """A linear head with fresh weights; one that is just so already stays. Raises ConfigError for a chat model."""

    classes: int
    modalities: tuple[str, ...]
    """Of which kinds of media it reads."""
    pooling: Literal["features", "average", "concat"] = "features"
    """One kind's vectors before the projection, or the average or concatenation of normalised embeddings."""

    def __call__(self, model: Model) -> None:
        if not isinstance(model, EmbeddingModel):
            raise ConfigError(
                f"AddHead: wanted a model that embeds media, found {type(model).__name__}; take one of towers, such as "
                "model=random-tiny-astro"
            )
        model.add_head(self.classes, self.modalities, self.pooling)
