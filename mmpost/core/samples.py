"""The data that flows through a step: samples, replies, batches, model outputs, losses. Import from `mmpost.types`.

Axes in the shapes: `sample`, `reply` (all replies of a batch, concatenated), `tok` (all reply tokens of a batch,
concatenated), `dim`. How the model pads, packs or shares prefixes between replies never shows here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmpost.errors import ColumnError, ConfigError

Value = float | Sequence[float]
"""One number per reply, or one per token of the reply."""

Origin = Literal["policy", "truth", "data"]
Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class CoordinateFrame:
    """The coordinate system in which boxes and points are written: x in [0, width], y in [0, height].

    Pixels of an image of that size, or the scale that a model was trained on (Qwen3-VL: 1000 x 1000).
    """

    width: float
    height: float
    unknown_family: str = ""
    """The family of a model of which it is not known how it writes coordinates; sizes then are those of the image."""

    def convert(self, other: CoordinateFrame, xy: Sequence[float]) -> list[float]:
        """Convert a flat list x, y, x, y, ... from this frame to `other`. Raises ConfigError if either is unknown."""
        family = self.unknown_family or other.unknown_family
        if family:
            raise ConfigError(
                f"wanted boxes or points of a known scale, but how {family!r} writes coordinates is not known; set "
                "model.coordinates=pixels (of the image) or model.coordinates=thousand (0 to 1000)"
            )
        scale = (other.width / self.width, other.height / self.height)
        return [v * scale[i % 2] for i, v in enumerate(xy)]


@dataclass(frozen=True)
class Part:
    """One piece of a prompt or reply."""

    modality: str
    """"text", or a registered modality ("image", "video", "audio", ...)."""
    value: Any
    """The text, or a lazy reference to the medium (`mmpost.data.media.media.Media`), not decoded yet."""
    role: str = "user"
    """system, user or assistant. Consecutive parts of the same role form one message."""


@dataclass(frozen=True)
class Reply:
    """A reply to a prompt: sampled by the policy, taken from the data, or the injected ground truth."""

    parts: tuple[Part, ...]
    origin: Origin = "data"
    token_ids: tuple[int, ...] | None = None
    """Exactly as sampled, including the end of turn, and never re-tokenized; None until a model has encoded it."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Reward components and metrics by name, before weighting."""
    columns: Mapping[str, Value] = field(default_factory=dict)
    """Inputs of objectives: reward, advantage, old_logp, ref_logp, mask, temperature, truncated, ..."""

    @property
    def text(self) -> str:
        """All text parts, concatenated."""
        return "".join(p.value for p in self.parts if p.modality == "text")


@dataclass(frozen=True)
class Sample:
    """A prompt with k replies: k = 0 (contrastive), 1 (supervised), 2 (preference), or a group of G (RL)."""

    uid: str
    """Unique within its source and stable across runs: groups, manifests and random seeds are keyed by it."""
    prompt: tuple[Part, ...]
    replies: tuple[Reply, ...] = ()
    truth: Any = None
    """Ground truth in the form that the rewards and metrics expect; JSON-serializable."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, float] = field(default_factory=dict)
    """Numbers about the sample (weight, class label, ...); objectives see them on each of its replies, too."""
    frame: CoordinateFrame | None = None
    """The frame in which the current model writes coordinates for this sample; set when the sample is read."""
    where: str = field(default="", compare=False)
    """File and row of a sample from the user's data."""

    @property
    def label(self) -> str:
        """The sample in a message: its file and row where known, and its uid."""
        if not self.where:
            return f"sample {self.uid!r}"
        return self.uid if self.where in self.uid else f"{self.where} (sample {self.uid!r})"


@dataclass(frozen=True)
class SampleRecord:
    """What a data-generation stage recorded of one sample, without its replies."""

    uid: str
    index: int
    """The sample's index in the stage's source."""
    columns: Mapping[str, float] = field(default_factory=dict)
    """The sample's columns after the transforms."""
    drop_reason: str = ""
    """Why the sample was dropped (unreadable, or dropped by a transform); empty if it was not."""


@dataclass(frozen=True)
class Batch:
    """A micro-batch: samples, replies and tokens on flat axes, and the model's own inputs for them."""

    reply_of: Int[Tensor, " tok"]
    """Index of each token's reply."""
    group_of: Int[Tensor, " reply"]
    """Index of each reply's sample; replies of one sample form a group."""
    columns: Mapping[str, Tensor]
    """The columns that the objective requires, by name: [reply] or [tok]."""
    inputs: Any = None
    """Private to the model; None in a batch that only serves to count."""
    per_token_columns: Collection[str] = frozenset()
    """Names of the columns that have one value per token."""
    sample_ids: Int[Tensor, " sample"] = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    """A number derived from each sample's uid, also for samples without replies; equal in every batch, rank and run."""
    sample_columns: Mapping[str, Float[Tensor, " sample"]] = field(default_factory=dict)
    """Those of the required columns that the samples themselves have, by name."""
    modality_mask: Mapping[str, Bool[Tensor, " sample"]] = field(default_factory=dict)
    """By modality: which samples have it in their prompt. A modality that no sample has may be missing."""

    @property
    def samples(self) -> int:
        return self.sample_ids.shape[0]

    @property
    def replies(self) -> int:
        return self.group_of.shape[0]

    @property
    def tokens(self) -> int:
        return self.reply_of.shape[0]

    def tok(self, name: str) -> Float[Tensor, " tok"]:
        """A column with one value per token; a per-reply column is repeated over the tokens of each reply."""
        column = self.columns[name]
        per_reply = column.shape[0] == self.replies and name not in self.per_token_columns
        return column[self.reply_of] if per_reply else column

    def reply(self, name: str) -> Float[Tensor, " reply"]:
        """A column with one value per reply."""
        assert name not in self.per_token_columns, f"column {name!r} has one value per token"
        return self.columns[name]

    def sample(self, name: str) -> Float[Tensor, " sample"]:
        """A column with one value per sample. Raises ColumnError where the samples have no such column."""
        if name not in self.sample_columns:
            raise ColumnError(
                f"the objective reads the column {name!r} of samples; these have {sorted(self.sample_columns)}: write "
                "it into Sample.columns, in the task's source or in a transform"
            )
        return self.sample_columns[name]

    def has(self, modality: str) -> Bool[Tensor, " sample"]:
        """Which samples have a part of this modality in their prompt."""
        none = torch.zeros(self.samples, dtype=torch.bool, device=self.sample_ids.device)
        return self.modality_mask.get(modality, none)

    def sum(self, x: Float[Tensor, " tok"]) -> Float[Tensor, " reply"]:
        """Sum over the tokens of each reply; 0 for a reply without tokens."""
        return torch.zeros(self.replies, dtype=x.dtype, device=x.device).index_add(0, self.reply_of, x)

    def lengths(self, mask: Float[Tensor, " tok"]) -> Float[Tensor, " reply"]:
        """The number of trained tokens of each reply, but 1 where it is 0: the result is a divisor."""
        total = self.sum(mask)
        return total.masked_fill(total == 0, 1.0)

    def reply_mean(self, mask: Float[Tensor, " tok"]) -> Float[Tensor, " tok"]:
        """Token weights that sum to 1 over the trained tokens of each reply."""
        return mask / self.lengths(mask)[self.reply_of]

    def by_reply(self, x: Float[Tensor, " tok"]) -> list[list[float]]:
        """Split a per-token tensor into one list per reply."""
        return [piece.tolist() for piece in x.split(self.reply_of.bincount(minlength=self.replies).tolist())]


@dataclass(frozen=True)
class Outputs:
    """Model outputs; None (or empty) where the objective does not require them (`Objective.required_outputs`)."""

    logp: Float[Tensor, " tok"] | None = None
    """Log-probability of each reply token at the reply's temperature, with banned tokens excluded; fp32."""
    entropy: Float[Tensor, " tok"] | None = None
    """Entropy (nats) of the distribution that each reply token is sampled from; fp32. Required as "entropy", or as
    "entropy_value" where no gradient is needed."""
    sum_p2: Float[Tensor, " tok"] | None = None
    """Sum of the squared probabilities of that distribution (its confidence), without gradient; fp32."""
    embeddings: Mapping[str, Float[Tensor, "sample dim"]] = field(default_factory=dict)
    """Normalized embeddings by modality; zeros for a sample that lacks the modality (`Batch.has`)."""
    classes: Float[Tensor, "sample class"] | None = None
    """Logits of the model's classification head; fp32."""
    aux: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Scalars of the model: learnable log-scales and biases, an expert-balance loss. An objective with unit "batch" may
    read only those that are equal in every micro-batch; their gradient is counted once."""


@dataclass(frozen=True)
class Loss:
    """Loss terms as sums over replies or tokens; each is divided by its own count over the whole optimizer step."""

    terms: Mapping[str, Float[Tensor, ""]]
    metrics: Mapping[str, tuple[float | Tensor, float | Tensor]] = field(default_factory=dict)
    """(sum, count) by name; the log shows sum / count over the step."""

    def total(self, counts: Mapping[str, float]) -> Float[Tensor, ""]:
        """The scalar to minimize: the sum of all terms, each divided by its own count."""
        return torch.stack([term / counts[name] for name, term in self.terms.items()]).sum()


def at_least_fp32(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Upcast bf16 and fp16 to fp32, the precision in which losses and gradients are accumulated.

    Wider types are kept, so that a float64 model computes in float64 throughout.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))
