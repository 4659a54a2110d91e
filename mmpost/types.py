"""The nouns of mmpost. Read this file first: every plug-in is a function or class over these types.

Axis words in the shapes: `sample`, `reply` (all replies of a batch, one after the other), `tok` (all reply tokens of a
batch, one after the other), `dim`. How replies are padded, packed or shared inside the model never shows here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from mmpost.settings import DataSettings, Settings

Value = float | Sequence[float]
"""One number per reply, or one per token of the reply."""

Origin = Literal["policy", "truth", "data"]
Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Frame:
    """The coordinate system in which boxes and points are written: x in [0, width], y in [0, height].

    Pixels of an image of that size, or any scale a model was taught (Qwen3-VL: 1000 x 1000).
    """

    width: float
    height: float

    def to(self, other: Frame, xy: Sequence[float]) -> list[float]:
        """Convert x, y, x, y, ... from this frame to `other`."""
        scale = (other.width / self.width, other.height / self.height)
        return [v * scale[i % 2] for i, v in enumerate(xy)]


@dataclass(frozen=True)
class Part:
    """One piece of a prompt or reply."""

    kind: str
    """"text", or the name of a registered media kind ("image", "video", "audio", ...)."""
    value: Any
    """The text, or a lazy reference to the medium (`mmpost.data.media.Media`): nothing is decoded here."""
    role: str = "user"
    """Who says it: system, user or assistant. Neighbouring parts of one role form one message."""


@dataclass(frozen=True)
class Reply:
    """One answer to a prompt: sampled by the policy, or taken from the data, or the injected truth."""

    parts: tuple[Part, ...]
    origin: Origin = "data"
    token_ids: tuple[int, ...] | None = None
    """Exactly as sampled, end of turn included; None until the model writes it. Never re-tokenised."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Reward components and metrics by name, before weights."""
    columns: Mapping[str, Value] = field(default_factory=dict)
    """Numbers for objectives: reward, advantage, old_logp, ref_logp, mask, temperature, truncated, ..."""

    @property
    def text(self) -> str:
        return "".join(p.value for p in self.parts if p.kind == "text")


@dataclass(frozen=True)
class Sample:
    """A prompt with its k replies: k = 0 contrastive, 1 supervised, 2 preference, G reinforcement."""

    uid: str
    """Unique within its source and stable over runs: groups, manifests and random numbers are keyed by it."""
    prompt: tuple[Part, ...]
    replies: tuple[Reply, ...] = ()
    truth: Any = None
    """Whatever the rewards and metrics need; JSON-serialisable."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, float] = field(default_factory=dict)
    """Numbers about the sample (weight, class label, presence of a modality); seen by objectives for each reply."""
    frame: Frame | None = None
    """The frame in which the model at work writes coordinates for this sample; set when the sample is drawn."""


@dataclass(frozen=True)
class Batch:
    """Replies of one micro-batch in reply space, and the model's own inputs for them."""

    reply_of: Int[Tensor, " tok"]
    """For each token, the index of its reply."""
    group_of: Int[Tensor, " reply"]
    """For each reply, a number that its group (sample) shares."""
    columns: Mapping[str, Tensor]
    """What the objective declared: [reply] or [tok] by name."""
    inputs: Any = None
    """Belongs to the model; None where only counts are wanted."""

    @property
    def replies(self) -> int:
        return self.group_of.shape[0]

    @property
    def tokens(self) -> int:
        return self.reply_of.shape[0]

    def tok(self, name: str) -> Float[Tensor, " tok"]:
        """A column with one value per token; a per-reply column is repeated over the tokens of its reply."""
        column = self.columns[name]
        per_reply = column.shape[0] == self.replies and name not in self.per_token
        return column[self.reply_of] if per_reply else column

    def reply(self, name: str) -> Float[Tensor, " reply"]:
        """A column with one value per reply."""
        assert name not in self.per_token, f"column {name!r} has one value per token"
        return self.columns[name]

    def sum(self, x: Float[Tensor, " tok"]) -> Float[Tensor, " reply"]:
        """Sum over the tokens of each reply."""
        return torch.zeros(self.replies, dtype=x.dtype, device=x.device).index_add(0, self.reply_of, x)

    per_token: Collection[str] = frozenset()
    """Names of the columns that have one value per token."""


@dataclass(frozen=True)
class Outputs:
    """What the objective asked the model for, else None."""

    logp: Float[Tensor, " tok"] | None = None
    """Log-probability of each reply token at the reply's temperature, banned tokens excluded, fp32."""
    entropy: Float[Tensor, " tok"] | None = None
    """Entropy of the distribution that each reply token was drawn from, fp32; wanted as "entropy", or as
    "entropy_value" where its gradient is not."""
    embeddings: Mapping[str, Float[Tensor, "sample dim"]] = field(default_factory=dict)
    aux: Mapping[str, Tensor] = field(default_factory=dict)
    """Scalars of the model itself, such as an expert-balance loss."""


@dataclass(frozen=True)
class Loss:
    """Sums by name; the trainer divides each by its own count over the whole optimiser step, and adds them."""

    terms: Mapping[str, Float[Tensor, ""]]
    metrics: Mapping[str, tuple[float | Tensor, float | Tensor]] = field(default_factory=dict)
    """(sum, count) by name, for the log."""


class Sampling(Settings):
    """How replies are drawn. Only these apply: a checkpoint's own generation settings are ignored."""

    max_tokens: int = Field(ge=1)
    """Most tokens of a reply; one that reaches it without an end is truncated."""
    temperature: float = Field(default=1.0, ge=0)
    """Logits are divided by it; 0 takes the most likely token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Only the most likely tokens that together reach this probability."""
    top_k: int = Field(default=0, ge=0)
    """Only that many most likely tokens; 0 keeps all."""


@runtime_checkable
class Model(Protocol):
    """The only place that knows templates, special tokens, image grids and positions."""

    module: torch.nn.Module

    def plan(self, samples: Sequence[Sample], columns: Collection[str], unit: str) -> list[Batch]:
        """Cut the replies of `samples` into micro-batches within the budget, with the named columns."""
        ...

    def counts_batch(self, samples: Sequence[Sample], columns: Collection[str]) -> Batch:
        """All replies of `samples` as one batch without inputs: what `Objective.counts` reads before any forward."""
        ...

    def step(self, plan: Sequence[Batch]) -> AbstractContextManager[None]:
        """Surrounds the micro-batches of one optimiser step; its exit does what must happen once per step."""
        ...

    def __call__(self, batch: Batch, wants: Collection[str]) -> Outputs: ...

    def reply(self, text: str, origin: Origin) -> Reply:
        """A reply with token ids as the model would have written it, end of turn included."""
        ...

    def frame(self, sample: Sample) -> Frame | None:
        """The frame in which this model writes coordinates for `sample`, from the header of its first image."""
        ...

    def parts(self) -> Mapping[str, Sequence[str]]:
        """Parameter-name prefixes by part of the model ("vision", "projector", "language", ...)."""
        ...

    def after_step(self) -> None:
        """Called after each optimiser step (clamps, caches)."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights and processor so that transformers' `from_pretrained` loads them."""
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


class Decoding(Protocol):
    """A model that can write replies."""

    @property
    def recipe(self) -> Any:
        """How prompts become tokens; `end` holds the tokens that end a reply."""
        ...

    def decoder(self, samples: Sequence[Sample], n: int) -> Decoder: ...

    def sampled(self, token_ids: Sequence[int]) -> Reply:
        """The reply made of these tokens."""
        ...


class Rollout(Protocol):
    """An engine that draws replies."""

    def generate(self, samples: Sequence[Sample], n: int, sampling: Sampling, seed: int) -> list[Sample]:
        """Append `n` replies of origin "policy" to each sample; the draw depends on weights, seed and uid alone."""
        ...


class Engine(Protocol):
    """Where gradients are computed and weights move."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss` to what this step has."""
        ...

    def step(self) -> Mapping[str, float]:
        """Add up the gradients of all ranks, move the weights, clear the gradients; numbers for the log."""
        ...


@runtime_checkable
class Context(Protocol):
    """What a transform may ask of the running job."""

    version: int
    """Number of the weights: it grows by one with each optimiser step."""
    step: int

    def generate(self, samples: Sequence[Sample], n: int, sampling: Sampling) -> list[Sample]: ...

    def logp(self, samples: Sequence[Sample], of: str) -> list[list[list[float]]]:
        """Per-token log-probabilities [sample][reply][tok] of the replies under `of`: "policy" or "reference"."""
        ...

    def reply(self, text: str, origin: Origin) -> Reply: ...

    def rng(self, name: str) -> torch.Generator:
        """A generator of random numbers that depends on the seed, the step and `name` only."""
        ...

    def gather(self, values: Sequence[float]) -> list[float]:
        """The numbers of all ranks, rank after rank; every rank must call it, also one that has no samples."""
        ...

    def log(self, name: str, value: float, count: float = 1.0) -> None:
        """Add to a mean that this step's line of the log will hold."""
        ...


Transform = Callable[[list[Sample], Context], list[Sample]]
"""Samples in, samples out; inputs are never changed in place. May have `makes`: names of the columns it writes."""

Reward = Callable[[Sample, Reply], "float | None"]
"""A score for one reply; None where the reward does not apply to the sample."""


@dataclass(frozen=True)
class Collect:
    """Among the transforms: those before it repeat until all ranks together have `n` samples; those after run once."""

    n: int
    rounds: int = 10


class Objective(Settings):
    """What is minimised. Its fields are its hyper-parameters."""

    unit: ClassVar[Literal["reply", "group", "batch"]] = "reply"
    """What may not be split over micro-batches."""

    @property
    def span(self) -> Literal["step", "rollout"]:
        """Denominators: counts of the optimiser step, or of its rollout batch divided by the number of updates."""
        return "step"

    @property
    def wants(self) -> frozenset[str]:
        """Names of `Outputs` fields."""
        return frozenset({"logp"})

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns that `idle`, `counts` and `__call__` read: no more, no fewer."""
        return frozenset({"mask"})

    @property
    def single_update(self) -> bool:
        """True where it is only right when each rollout batch serves one update."""
        return False

    def idle(self, batch: Batch) -> Bool[Tensor, " reply"]:
        """Which replies can have no gradient, known before any forward; they may be skipped, their counts stay."""
        return torch.zeros(batch.replies, dtype=torch.bool, device=batch.group_of.device)

    @abstractmethod
    def counts(self, batch: Batch) -> Mapping[str, float]:
        """The denominator of each term for these replies, known before any forward."""

    @abstractmethod
    def __call__(self, outputs: Outputs, batch: Batch) -> Loss: ...


class Update:
    """Which tensors move, and how. May not look at data."""

    @abstractmethod
    def start(self, module: torch.nn.Module, parts: Mapping[str, Sequence[str]], steps: int) -> None:
        """Make the optimiser over what trains; `steps` is the length of the stage."""

    @abstractmethod
    def step(self) -> Mapping[str, float]:
        """Clip, move the weights, advance the schedule, clear the gradients; returns numbers for the log."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]: ...

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


Edit = Callable[[Model], None]
"""Alters the model's module in place, before the update starts."""

Source = Sequence[Sample]
"""Samples by index, made or read on demand; the same index always gives the same sample."""


@dataclass(frozen=True)
class Stage:
    """A stretch of training."""

    name: str
    source: Source
    objective: Objective
    prompts: int
    """Samples of one rollout batch, over all ranks."""
    transforms: tuple[Transform | Collect, ...] = ()
    epochs: int = 1
    """Passes over each rollout batch."""
    minibatches: int = 1
    """Optimiser steps per pass; cut between groups."""
    share: float = 1.0
    """Share of the run's steps, relative to the other stages."""
    edits: tuple[Edit, ...] = ()
    update: Update | None = None
    """None: AdamW with the settings of `optim`."""
    optim: Mapping[str, Any] = field(default_factory=dict)
    """This stage's changes to `optim`; the user's own settings win."""

    @property
    def updates(self) -> int:
        return self.epochs * self.minibatches


@dataclass(frozen=True)
class Bench:
    """An evaluation: samples, what is done to them, and the numbers that come out."""

    name: str
    source: Source
    transforms: tuple[Transform, ...]
    summary: Callable[[Sequence[Sample]], Mapping[str, float]]
    """Metrics of a set of scored samples; called again on resamples for intervals, so it must be cheap."""


class Task(Settings):
    """The plug-in: what is learnt, from what. Its fields are the `task:` section of the configuration."""

    data: DataSettings = DataSettings()
    """The run's `data:` section; a task reads from it what it can train on, besides its built-in data."""

    best: ClassVar[str] = ""
    """The metric that tells which checkpoint is best, as "bench/metric"; empty: none is chosen."""

    @abstractmethod
    def stages(self) -> Iterator[Stage]:
        """The stretches of training, made lazily and from the fields alone."""

    def benches(self, split: Split) -> list[Bench]:
        """Evaluations on `split` ("val" or "test")."""
        return []
