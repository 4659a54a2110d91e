"""Standardization of numeric inputs by statistics of the training data."""

from __future__ import annotations

from dataclasses import dataclass

from mmpost.errors import ConfigError
from mmpost.types import EmbeddingModel, Model, Source


@dataclass(frozen=True)
class Standardize:
    """Fit the encoders' input means and standard deviations on `source`; a model that has them already keeps them.

    Raises ConfigError for a model that does not embed media, such as a chat model.
    """

    source: Source
    max_samples: int = 4096
    """Fit on at most this many samples, evenly spaced over the source."""

    def __call__(self, model: Model) -> None:
        if not isinstance(model, EmbeddingModel):
            raise ConfigError(
                f"Standardize: wanted an embedding model, found {type(model).__name__}; use one, such as "
                "model=random-tiny-astro"
            )
        count = min(self.max_samples, len(self.source))
        model.fit_scales([self.source[i * len(self.source) // count] for i in range(count)])
