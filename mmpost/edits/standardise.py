"""Scales of numbers, taken once from training data."""

from __future__ import annotations

from dataclasses import dataclass

from mmpost.errors import ConfigError
from mmpost.types import EmbeddingModel, Model, Source


@dataclass(frozen=True)
class Standardise:
    """Fit means and standard deviations of a model's encoders on `source`; a model that has its own keeps them.

    Raises ConfigError for a model without encoders of its own.
    """

    source: Source
    most: int = 4096
    """Samples at most, spread evenly."""

    def __call__(self, model: Model) -> None:
        if not isinstance(model, EmbeddingModel):
            raise ConfigError(
                f"Standardise: wanted a model that embeds media, found {type(model).__name__}; take one of towers, "
                "such as model=random-tiny-astro"
            )
        count = min(self.most, len(self.source))
        model.fit_scales([self.source[i * len(self.source) // count] for i in range(count)])
