"""Interfaces of plug-ins (transforms, rewards, objectives, updates, edits) and of what the run offers them."""

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
    """How replies are sampled. Only these settings apply: a checkpoint's generation config is ignored."""

    max_tokens: int = Field(default=1024, ge=1)
    """Maximum number of tokens per reply; a reply that reaches it without an end of turn counts as truncated."""
    temperature: float = Field(default=1.0, ge=0)
    """Logits are divided by it; 0: greedy decoding."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling: only the most likely tokens that together reach this probability."""
    top_k: int = Field(default=0, ge=0)
    """Only this many of the most likely tokens; 0: all."""


class Rollout(Protocol):
    """An engine that samples replies."""

    def generate(self, samples: Sequence[Sample], n: int, sampling: Sampling, seed: int) -> list[Sample]:
        """Append `n` replies of origin "policy" to each sample; they depend on weights, seed and uid only."""
        ...


class Engine(Protocol):
    """Computes gradients and updates the weights."""

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradient of `loss` into that of the current step."""
        ...

    def step(self) -> Mapping[str, float]:
        """Sum gradients over all ranks, update the weights and clear the gradients; returns metrics for the log."""
        ...


@runtime_checkable
class Context(Protocol):
    """What a transform may use of the run that it is part of."""

    version: int
    """Version of the weights; it grows by one with each optimizer step."""
    step: int
    """Optimizer steps done so far, over all stages."""

    def generate(self, samples: Sequence[Sample], n: int, sampling: Sampling, of: str = "policy") -> list[Sample]:
        """Append `n` replies to each sample, sampled under the weights `of`.

        `of`: "policy" (the current weights) or "start" (declare `requires_start`).
        """
        ...

    def logp(self, samples: Sequence[Sample], of: str) -> list[list[list[float]]]:
        """Per-token log-probabilities [sample][reply][tok] of the replies under the weights `of`.

        `of`: "policy" (the current weights) or "reference" (declare `requires_reference`).
        """
        ...

    def attention(self, samples: Sequence[Sample], layers: float = 1 / 3) -> list[list[Float[Tensor, "tok media"]]]:
        """Attention weights [sample][reply] of each reply token on each prompt token that stands for media.

        Under the current weights, without gradient and dropout; averaged over heads and over the last layers; fp32 on
        the CPU. Row t holds the weights of the query at reply token t itself, which has read that token, not of the
        position that predicts it; all tokens count, the end of turn included. Columns are the media tokens (patches of
        images and videos, frames of sound) in the order of the prompt; there are none for a prompt of text. Rows are
        not normalized: a row sums to the part of the attention that falls on media, at most 1.

        `layers`: the fraction of the language model's layers, counted from the last one, rounded, at least one layer;
        those without attention weights (recurrent ones) are left out of the average. One sequence is computed at a
        time, with memory for heads x (prompt + reply)^2 weights. Raises ConfigError for a model that writes no replies,
        and for one whose layers have no attention weights.
        """
        ...

    def embed(self, samples: Sequence[Sample]) -> list[dict[str, Float[Tensor, " dim"]]]:
        """Normalized embeddings of each sample, by the modalities that it has; fp32 on the CPU."""
        ...

    def class_logits(self, samples: Sequence[Sample]) -> Float[Tensor, "sample class"]:
        """Logits of the classification head; fp32 on the CPU. Zero columns for a model without a head."""
        ...

    def loss(self, samples: Sequence[Sample], objective: Objective) -> float:
        """The loss of an optimizer step on these samples of all ranks, without gradient and dropout.

        Every rank must call it, even without samples.
        """
        ...

    def encode_reply(self, text: str, origin: Origin) -> Reply:
        """A reply with the token ids of `text`, including the end of turn.

        Raises ConfigError for a model that writes no replies.
        """
        ...

    def rng(self, name: str) -> torch.Generator:
        """A CPU generator whose numbers depend only on the run's seed, the stage, the step and `name`."""
        ...

    def gather(self, values: Sequence[float]) -> list[float]:
        """The values of all ranks, concatenated in rank order. Every rank must call it, even without samples."""
        ...

    def log(self, name: str, value: float, count: float = 1.0) -> None:
        """Add to a metric of this step, which is logged as sum / count over all ranks."""
        ...


class Transform:
    """A step of data processing: samples in, samples out. Inputs are never modified in place.

    A transform with fields derives from `Settings`, too, or is a dataclass. A stage also accepts a plain function of
    (samples, context); it is wrapped in a `FunctionTransform`, which declares nothing.
    """

    makes: ClassVar[tuple[str, ...]] = ()
    """The columns that it writes."""
    conflicts: ClassVar[Mapping[str | type, str]] = {}
    """What it must not be combined with, and why: columns that another transform writes, class names, or classes."""
    requires_reference: ClassVar[bool] = False
    """Whether it calls `context.logp(samples, "reference")`; the stage then keeps reference weights in memory."""
    requires_start: ClassVar[bool] = False
    """Whether it uses the weights that the run started from (`of="start"`), which then stay in memory. Without training
    its bench is left out."""
    timer: ClassVar[str] = "transform"
    """The time that it takes is logged as time/<timer>, in seconds."""

    @abstractmethod
    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        """Process this rank's samples. They may be empty; collectives (`context.gather`) must be called even then."""
        ...

    def gold_text(self) -> Callable[[Sample], str | None] | None:
        """A function that writes a correct reply from a sample's truth, if there is one; used by `mmpost check`."""
        return None

    def max_reply_tokens(self) -> int:
        """Maximum number of tokens of the replies that it samples; 0 where it samples none."""
        return 0


@dataclass(frozen=True)
class FunctionTransform(Transform):
    """Wraps a plain function as a transform."""

    function: Callable[[list[Sample], Context], list[Sample]]

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return self.function(samples, context)


class Selector(Transform):
    """A transform of a data-generation stage that decides only after all samples have been processed."""

    @abstractmethod
    def finalize(self, records: Sequence[SampleRecord]) -> Mapping[str, Mapping[str, float]]:
        """Further columns by uid, such as "kept" (1 or 0), computed from all records of the stage."""


Reward = Callable[[Sample, Reply], "float | None"]
"""Scores one reply; None where the reward does not apply to the sample."""


@dataclass(frozen=True)
class RefillBatch:
    """A marker among a stage's transforms, for dynamic sampling.

    The transforms before it are repeated on new samples until all ranks together have `size` samples, or for
    `max_rounds` rounds; those after it run once.
    """

    size: int
    max_rounds: int = 10


class Objective(Settings):
    """The loss that is minimized. Its fields are its hyperparameters."""

    unit: ClassVar[Literal["reply", "group", "batch"]] = "reply"
    """What must be in one call: a reply, a group (all replies of a sample), or "batch": the optimizer step with all its
    micro-batches and ranks. For "batch" the trainer uses gradient caching (`training/gradient_cache.py`), the result
    must not depend on the order of samples, and `zero_gradient_mask` is not called."""

    @property
    def denominator_scope(self) -> Literal["step", "rollout"]:
        """Divide terms by the counts of the optimizer step, or by the mean over the rollout batch's minibatches."""
        return "step"

    @property
    def required_outputs(self) -> frozenset[str]:
        """Names of the `Outputs` fields that it reads."""
        return frozenset({"logp"})

    @property
    def required_columns(self) -> frozenset[str]:
        """Exactly the columns that `zero_gradient_mask`, `counts` and `__call__` read."""
        return frozenset({"mask"})

    @property
    def on_policy_only(self) -> bool:
        """Whether it is correct only with a single optimizer step per rollout batch."""
        return False

    @property
    def policy_logprob_columns(self) -> frozenset[str]:
        """Those of `required_columns` that hold log-probs under the weights that sampled the rollout batch.

        Unless a transform wrote them, the trainer records them: in the first update's own forward pass, and for replies
        whose first update comes later, in a forward pass before it. `counts` and `zero_gradient_mask` may not read
        them.
        """
        return frozenset()

    def zero_gradient_mask(self, batch: Batch) -> Bool[Tensor, " reply"]:
        """Replies whose gradient is zero whatever the model outputs (such as a zero advantage).

        They may be skipped, so they must add exactly 0 to each term, and to the sum and the count of each metric.
        """
        return torch.zeros(batch.replies, dtype=torch.bool, device=batch.group_of.device)

    @abstractmethod
    def counts(self, batch: Batch) -> Mapping[str, float]:
        """The denominator of each loss term for these replies, such as their number or their tokens.

        It is called before any forward pass, and summed over ranks; with unit "batch", once on the whole step.
        """

    @abstractmethod
    def __call__(self, outputs: Outputs, batch: Batch) -> Loss:
        """The loss terms of a micro-batch, as sums (not means) over its replies or tokens."""
        ...


class Update:
    """An optimizer with its schedule: which parameters are updated, and how. It never sees data, only metrics."""

    @abstractmethod
    def start(self, module: torch.nn.Module, parts: Mapping[str, Sequence[str]], steps: int) -> None:
        """Create the optimizer over the trainable parameters of `module`.

        `parts`: parameter-name prefixes by part (`Model.parameter_groups`); `steps`: the length of the stage.
        """

    @abstractmethod
    def step(self) -> Mapping[str, float]:
        """Clip gradients, update weights, advance the schedule, clear gradients; returns metrics for the log.

        Weights must stay unchanged where the gradient norm is not finite.
        """

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Hear the metrics ("bench/metric") of an evaluation on val, after the step that it followed."""

    @property
    def should_stop(self) -> bool:
        """Whether the stage should end before its last step."""
        return False

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs: tensors and plain data."""
        ...

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a `state_dict`, after `start`."""
        ...


Edit = Callable[[Model], None]
"""Modifies the model's module in place, before the update starts."""
