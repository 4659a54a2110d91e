"""What a model is to everything else. Import these names from `mmpost.types`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmpost.core.samples import Batch, CoordinateFrame, Origin, Outputs, Reply, Sample


@dataclass(frozen=True)
class InputPreview:
    """What a model reads of a sample, for people and checks."""

    summary: str
    """A few words on its size."""
    text: str
    """The prompt as text, templates applied; empty where there is none."""
    tensors: Mapping[str, Tensor]
    """Inputs by name."""


@runtime_checkable
class Model(Protocol):
    """The only place that knows templates, special tokens, image grids, positions and encoders."""

    module: torch.nn.Module
    device: torch.device

    @property
    def recipe(self) -> Any:
        """A dataclass of everything that decides what the model reads of a sample, with its `hash`."""
        ...

    def plan(self, samples: Sequence[Sample], columns: Collection[str], unit: str) -> list[Batch]:
        """Cut `samples` into micro-batches within the budget, with the named columns.

        Between replies ("reply") or samples ("group"), or not at all ("batch").
        """
        ...

    def counts_batch(self, samples: Sequence[Sample], columns: Collection[str]) -> Batch:
        """All replies of `samples` as one batch without inputs: what `Objective.counts` reads before any forward."""
        ...

    def step(self, plan: Sequence[Batch]) -> AbstractContextManager[None]:
        """Surrounds the micro-batches of one optimiser step; its exit does what must happen once per step."""
        ...

    def __call__(self, batch: Batch, wants: Collection[str], train: bool | None = None) -> Outputs:
        """The statistics in `wants`; `train`: with the dropout of training (None: where gradients are computed)."""
        ...

    def encode_reply(self, text: str, origin: Origin) -> Reply:
        """A reply with token ids as the model would have written it, end of turn included."""
        ...

    def validate(self, sample: Sample) -> None:
        """Open the prompt's media and write its tokens; raises DataError for a sample that this model cannot take."""
        ...

    def preview(self, sample: Sample) -> InputPreview: ...

    def cache_key(self, sample: Sample) -> str:
        """A hash of all but weights and reply that log-probs follow from: recipe, arithmetic, prompt, its media."""
        ...

    def prefetch(self, samples: Sequence[Sample]) -> None:
        """These come next: their media may be read in the background; what fails then fails again in its place."""
        ...

    def num_tokens(self, samples: Sequence[Sample]) -> int:
        """How much of `compute.max_tokens_per_microbatch` one forward over `samples` takes."""
        ...

    def coordinate_frame(self, sample: Sample) -> CoordinateFrame | None:
        """The frame in which this model writes coordinates for `sample`, from the header of its first image."""
        ...

    def count_escaped_tokens(self, sample: Sample) -> int:
        """How many names of special tokens its text holds, which stay plain text."""
        ...

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """The text of each token of a reply."""
        ...

    def parameter_groups(self) -> Mapping[str, Sequence[str]]:
        """Parameter-name prefixes by part of the model ("vision", "projector", "language", ...)."""
        ...

    def after_step(self) -> None:
        """Called after each optimiser step (clamps, caches)."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights and what reads media, so that `model=FOLDER` loads them (chat models: transformers too)."""
        ...


@runtime_checkable
class EmbeddingModel(Protocol):
    """A model with encoders, whose scales of numbers are fitted on data, and which may have a classifier."""

    @property
    def num_classes(self) -> int:
        """How many classes its head tells apart; 0: it has none."""
        ...

    def fit_scales(self, samples: Sequence[Sample]) -> None:
        """Take the scales of numbers from these samples, unless that has been done."""
        ...

    def add_head(self, classes: int, kinds: tuple[str, ...], how: Literal["features", "average", "concat"]) -> None:
        """A fresh classifier; one that is just so already stays, with its weights."""
        ...


class Decoder(Protocol):
    """Writes n replies to each of some samples, token by token."""

    def start(self) -> Float[Tensor, "sample vocab"]:
        """Logits of the first token, one row per sample; afterwards the decoder holds n live replies of each."""
        ...

    def step(self, tokens: Int[Tensor, " live"]) -> Float[Tensor, "live vocab"]:
        """Logits after one more token of each live reply."""
        ...

    def keep(self, live: Int[Tensor, " live"]) -> None:
        """Drop all live replies but those at these indices."""
        ...

    def distribution(self, logits: Float[Tensor, "live vocab"], temperature: float) -> Float[Tensor, "live vocab"]:
        """Log-probabilities exactly as the training passes compute them."""
        ...


@runtime_checkable
class GenerativeModel(Protocol):
    """A model that can write replies."""

    @property
    def recipe(self) -> Any:
        """How prompts become tokens; `end` holds the tokens that end a reply."""
        ...

    def decoder(self, samples: Sequence[Sample], n: int) -> Decoder: ...

    def decode_reply(self, token_ids: Sequence[int]) -> Reply:
        """The reply made of these tokens."""
        ...
