"""What a model is to everything else."""

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

Pooling = Literal["features", "average", "concat"]
"""What a classifier reads: one encoder's features, or the average or concatenation of normalized embeddings."""


@dataclass(frozen=True)
class InputPreview:
    """What a model reads of a sample, for people and checks."""

    summary: str
    """A few words on its size."""
    text: str
    """The prompt as text, chat template applied; empty for a model without prompts."""
    tensors: Mapping[str, Tensor]
    """Inputs by name."""


@runtime_checkable
class Model(Protocol):
    """A model in training. Templates, special tokens, image grids, positions and encoders are known nowhere else."""

    module: Any
    """The torch module that trains."""
    device: torch.device

    @property
    def recipe(self) -> Any:
        """A dataclass of everything that decides what the model reads of a sample, with its `hash`."""
        ...

    def plan(self, samples: Sequence[Sample], columns: Collection[str], unit: str) -> list[Batch]:
        """Split `samples` into micro-batches within the budget, with the named columns.

        `unit`: what stays together: a reply, a group (all replies of a sample), or everything ("batch").
        """
        ...

    def counts_batch(self, samples: Sequence[Sample], columns: Collection[str]) -> Batch:
        """All replies of `samples` as one batch without inputs: what `Objective.counts` reads before any forward."""
        ...

    def step(self, plan: Sequence[Batch]) -> AbstractContextManager[None]:
        """Surrounds the micro-batches of one optimizer step; on exit, what must happen once per step happens.

        For example the single backward pass through a trained vision encoder whose features several micro-batches use.
        """
        ...

    def __call__(self, batch: Batch, wants: Collection[str], train: bool | None = None) -> Outputs:
        """The statistics named in `wants`; `train`: with dropout (None: wherever gradients are computed)."""
        ...

    def validate(self, sample: Sample) -> None:
        """Open the media and tokenize the prompt; raises DataError for a sample that this model cannot take."""
        ...

    def preview(self, sample: Sample) -> InputPreview: ...

    def cache_key(self, sample: Sample) -> str:
        """A hash of everything that log-probs depend on besides weights and reply: recipe, precision, prompt, media."""
        ...

    def prefetch(self, samples: Sequence[Sample]) -> None:
        """Start reading the media of the samples that come next; errors are raised when a sample is used."""
        ...

    def num_tokens(self, samples: Sequence[Sample]) -> int:
        """How much of `compute.max_tokens_per_microbatch` one forward over `samples` takes."""
        ...

    def parameter_groups(self) -> Mapping[str, Sequence[str]]:
        """Parameter-name prefixes by part of the model ("vision", "projector", "language", ...)."""
        ...

    def after_step(self) -> None:
        """Called after each optimizer step (clamps, caches)."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights and processors, so that `model=FOLDER` loads them (chat models: transformers does, too)."""
        ...


class Decoder(Protocol):
    """Samples n replies to each of several samples, token by token."""

    def start(self) -> Float[Tensor, "sample vocab"]:
        """Logits of the first token, one row per sample; afterwards the decoder holds n live replies of each."""
        ...

    def step(self, tokens: Int[Tensor, " live"]) -> Float[Tensor, "live vocab"]:
        """Logits after one more token of each live reply."""
        ...

    def keep(self, live: Int[Tensor, " live"]) -> None:
        """Drop all live replies except those at these indices."""
        ...

    def distribution(self, logits: Float[Tensor, "live vocab"], temperature: float) -> Float[Tensor, "live vocab"]:
        """Log-probabilities exactly as the training passes compute them."""
        ...


@runtime_checkable
class ReplyDecoder(Protocol):
    """What a rollout needs of a model."""

    @property
    def recipe(self) -> Any:
        """How prompts become tokens; `end` holds the tokens that end a reply."""
        ...

    def decoder(self, samples: Sequence[Sample], n: int) -> Decoder: ...

    def decode_reply(self, token_ids: Sequence[int]) -> Reply:
        """The reply that consists of these tokens."""
        ...


@runtime_checkable
class GenerativeModel(Model, ReplyDecoder, Protocol):
    """A model that writes replies."""

    def encode_reply(self, text: str, origin: Origin) -> Reply:
        """A reply with the token ids that the model itself would have written, including the end of turn."""
        ...

    def attention(self, samples: Sequence[Sample], layers: float) -> list[list[Float[Tensor, "tok media"]]]:
        """The attention of reply tokens to media tokens; see `Context.attention`.

        Raises ConfigError for a family without attention weights in these layers.
        """
        ...

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """The text of each token of a reply."""
        ...

    def coordinate_frame(self, sample: Sample) -> CoordinateFrame | None:
        """The frame in which this model writes coordinates for `sample`, from the header of its first image."""
        ...

    def count_escaped_tokens(self, sample: Sample) -> int:
        """How many names of special tokens the sample's text holds; they are tokenized as plain text."""
        ...


@runtime_checkable
class EmbeddingModel(Model, Protocol):
    """A model with one encoder per modality, and perhaps a classifier."""

    @property
    def num_classes(self) -> int:
        """Classes of its head; 0: it has none."""
        ...

    def fit_scales(self, samples: Sequence[Sample]) -> None:
        """Fit means and deviations of numeric inputs on these samples, unless that has been done."""
        ...

    def add_head(self, classes: int, modalities: tuple[str, ...], pooling: Pooling) -> None:
        """Add a classifier with fresh weights; an identical one that is there keeps its weights."""
        ...
