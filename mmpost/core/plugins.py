"""What plug-ins are made of: transforms, rewards, objectives, updates and edits, and what they may ask of the run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from mmpost.config.settings import Settings
from mmpost.core.models import Model
from mmpost.core.samples import Batch, Loss, Origin, Outputs, Reply, Sample, SampleRecord


class Sampling(Settings):
    """How replies are drawn. Only these apply: a checkpoint's own generation settings are ignored."""

    max_tokens: int = Field(default=1024, ge=1)
    """Most tokens of a reply; one that reaches it without an end is truncated."""
    temperature: float = Field(default=1.0, ge=0)
    """Logits are divided by it; 0 takes the most likely token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Only the most likely tokens that together reach this probability."""
    top_k: int = Field(default=0, ge=0)
    """Only that many most likely tokens; 0 keeps all."""


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

    def embed(self, samples: Sequence[Sample]) -> list[dict[str, Float[Tensor, " dim"]]]:
        """The normalised embeddings of each sample by kind, as far as it has them; fp32 on the CPU."""
        ...

    def class_logits(self, samples: Sequence[Sample]) -> Float[Tensor, "sample class"]:
        """Logits of the classification head; fp32 on the CPU. Without a head, a column for no class."""
        ...

    def encode_reply(self, text: str, origin: Origin) -> Reply: ...

    def rng(self, name: str) -> torch.Generator:
        """A generator of random numbers that depends on the seed, the step and `name` only."""
        ...

    def gather(self, values: Sequence[float]) -> list[float]:
        """The numbers of all ranks, rank after rank; every rank must call it, also one that has no samples."""
        ...

    def log(self, name: str, value: float, count: float = 1.0) -> None:
        """Add to a mean that this step's line of the log will hold."""
        ...


class Transform:
    """Samples in, samples out; inputs are never changed in place.

    Derive from it together with `Settings` (or a dataclass) where a transform has fields. A stage also takes a plain
    function of (samples, context); it is wrapped in a `FunctionTransform`, which declares nothing.
    """

    makes: ClassVar[tuple[str, ...]] = ()
    """Names of the columns that it writes."""
    conflicts: ClassVar[Mapping[str | type, str]] = {}
    """What it must not be combined with, and why: column names that another transform makes, class names, classes."""
    requires_reference: ClassVar[bool] = False
    """Whether it calls `context.logp(samples, "reference")`: the stage then keeps its reference weights."""
    timer: ClassVar[str] = "transform"
    """Its seconds are logged as time/<timer>."""

    @abstractmethod
    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]: ...

    def gold_text(self) -> Callable[[Sample], str | None] | None:
        """What writes a correct reply from a sample's truth, if this transform has it; for `mmpost check`."""
        return None

    def max_reply_tokens(self) -> int:
        """Most tokens of the replies that it samples; 0 where it samples none."""
        return 0


@dataclass(frozen=True)
class FunctionTransform(Transform):
    """A plain function as a transform."""

    function: Callable[[list[Sample], Context], list[Sample]]

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return self.function(samples, context)


class Selector(Transform):
    """A transform of a data-generation stage that decides once all samples have been through it."""

    @abstractmethod
    def finalize(self, records: Sequence[SampleRecord]) -> Mapping[str, Mapping[str, float]]:
        """More columns by uid, such as "kept" (1 or 0), from all records of the stage."""


Reward = Callable[[Sample, Reply], "float | None"]
"""A score for one reply; None where the reward does not apply to the sample."""


@dataclass(frozen=True)
class RefillBatch:
    """Among the transforms: those before it repeat until all ranks together have `n` samples; those after run once."""

    size: int
    max_rounds: int = 10


class Objective(Settings):
    """What is minimised. Its fields are its hyper-parameters."""

    unit: ClassVar[Literal["reply", "group", "batch"]] = "reply"
    """What it must see together. "batch": the whole optimiser step, of all micro-batches and ranks, in one call; the
    order of samples must not show. The trainer computes outputs without gradient, the loss on all of them, and each
    micro-batch again with its gradient; `idle` is not asked."""

    @property
    def denominator_scope(self) -> Literal["step", "rollout"]:
        """Denominators: counts of the optimiser step, or of its rollout batch divided by the number of updates."""
        return "step"

    @property
    def required_outputs(self) -> frozenset[str]:
        """Names of `Outputs` fields."""
        return frozenset({"logp"})

    @property
    def required_columns(self) -> frozenset[str]:
        """Names of the columns that `idle`, `counts` and `__call__` read: no more, no fewer."""
        return frozenset({"mask"})

    @property
    def on_policy_only(self) -> bool:
        """True where it is only right when each rollout batch serves one update."""
        return False

    @property
    def policy_logprob_columns(self) -> frozenset[str]:
        """Columns, of those that it reads, with the log-probs under the weights that the rollout batch was made with.

        The trainer writes them, unless a transform did: from the first update's own forward, and by a pass before it
        for the replies whose first update comes later. Neither `counts` nor `idle` may read them.
        """
        return frozenset()

    def zero_gradient_mask(self, batch: Batch) -> Bool[Tensor, " reply"]:
        """Which replies can have no gradient, whatever the model says of them; known before any forward.

        They may be left out of it: they must add exactly 0 to each term and to each metric's sum and count.
        """
        return torch.zeros(batch.replies, dtype=torch.bool, device=batch.group_of.device)

    @abstractmethod
    def counts(self, batch: Batch) -> Mapping[str, float]:
        """The denominator of each term for these replies, known before any forward.

        Counts of micro-batches and ranks are added up; with unit "batch" it is called once on the whole step.
        """

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
