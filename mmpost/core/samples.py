"""The data that flows: prompts, replies, batches, statistics, losses. Import these names from `mmpost.types`.

Axis words in the shapes: `sample`, `reply` (all replies of a batch, one after the other), `tok` (all reply tokens of a
batch, one after the other), `dim`. How replies are padded, packed or shared inside the model never shows here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmpost.errors import ColumnError

Value = float | Sequence[float]
"""One number per reply, or one per token of the reply."""

Origin = Literal["policy", "truth", "data"]
Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class CoordinateFrame:
    """The coordinate system in which boxes and points are written: x in [0, width], y in [0, height].

    Pixels of an image of that size, or any scale a model was taught (Qwen3-VL: 1000 x 1000).
    """

    width: float
    height: float

    def convert(self, other: CoordinateFrame, xy: Sequence[float]) -> list[float]:
        """Convert x, y, x, y, ... from this frame to `other`."""
        scale = (other.width / self.width, other.height / self.height)
        return [v * scale[i % 2] for i, v in enumerate(xy)]


@dataclass(frozen=True)
class Part:
    """One piece of a prompt or reply."""

    modality: str
    """"text", or the name of a registered media kind ("image", "video", "audio", ...)."""
    value: Any
    """The text, or a lazy reference to the medium (`mmpost.data.media.media.Media`): nothing is decoded here."""
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
        return "".join(p.value for p in self.parts if p.modality == "text")


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
    frame: CoordinateFrame | None = None
    """The frame in which the model at work writes coordinates for this sample; set when the sample is drawn."""


@dataclass(frozen=True)
class SampleRecord:
    """What a stage that makes data recorded of one sample, but for its replies."""

    uid: str
    index: int
    """Its place in the stage's source."""
    columns: Mapping[str, float] = field(default_factory=dict)
    """The sample's, after the transforms."""
    drop_reason: str = ""
    """Why it did not come through: it cannot be read, or a transform dropped it. Empty where it did."""


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
    per_token_columns: Collection[str] = frozenset()
    """Names of the columns that have one value per token."""
    sample_ids: Int[Tensor, " sample"] = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    """For each sample, also one without replies, a number made of its uid: the same in every batch, rank and run."""
    sample_columns: Mapping[str, Float[Tensor, " sample"]] = field(default_factory=dict)
    """What the objective declared, where the samples themselves have it."""
    modality_mask: Mapping[str, Bool[Tensor, " sample"]] = field(default_factory=dict)
    """By kind of part: which samples have one in their prompt. A kind that is missing here is on none of them."""

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
        """A column with one value per token; a per-reply column is repeated over the tokens of its reply."""
        column = self.columns[name]
        per_reply = column.shape[0] == self.replies and name not in self.per_token_columns
        return column[self.reply_of] if per_reply else column

    def reply(self, name: str) -> Float[Tensor, " reply"]:
        """A column with one value per reply."""
        assert name not in self.per_token_columns, f"column {name!r} has one value per token"
        return self.columns[name]

    def sample(self, name: str) -> Float[Tensor, " sample"]:
        """A column with one value per sample. Raises ColumnError where the samples have none of that name."""
        if name not in self.sample_columns:
            raise ColumnError(
                f"the objective reads the column {name!r} of samples; these have {sorted(self.sample_columns)}: write "
                "it into Sample.columns, in the task's source or by a transform"
            )
        return self.sample_columns[name]

    def has(self, kind: str) -> Bool[Tensor, " sample"]:
        """Which samples have a part of this kind in their prompt."""
        none = torch.zeros(self.samples, dtype=torch.bool, device=self.sample_ids.device)
        return self.modality_mask.get(kind, none)

    def sum(self, x: Float[Tensor, " tok"]) -> Float[Tensor, " reply"]:
        """Sum over the tokens of each reply."""
        return torch.zeros(self.replies, dtype=x.dtype, device=x.device).index_add(0, self.reply_of, x)

    def by_reply(self, x: Float[Tensor, " tok"]) -> list[list[float]]:
        """The numbers of each reply's tokens."""
        return [piece.tolist() for piece in x.split(self.reply_of.bincount(minlength=self.replies).tolist())]


@dataclass(frozen=True)
class Outputs:
    """What the objective asked the model for, else None."""

    logp: Float[Tensor, " tok"] | None = None
    """Log-probability of each reply token at the reply's temperature, banned tokens excluded, fp32."""
    entropy: Float[Tensor, " tok"] | None = None
    """Entropy of the distribution that each reply token was drawn from, fp32; wanted as "entropy", or as
    "entropy_value" where its gradient is not."""
    sum_p2: Float[Tensor, " tok"] | None = None
    """Sum of the squared probabilities of that distribution, without gradient, fp32: how sure the policy is."""
    embeddings: Mapping[str, Float[Tensor, "sample dim"]] = field(default_factory=dict)
    """By kind of medium, wanted as "embeddings"; zeros for a sample that has none (`Batch.has`)."""
    classes: Float[Tensor, "sample class"] | None = None
    """Logits of the model's classification head, fp32."""
    aux: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Scalars of the model itself: learnable log-scales and biases, an expert-balance loss. An objective of the whole
    batch may read those alone that are the same in every micro-batch; their gradient is counted once."""


@dataclass(frozen=True)
class Loss:
    """Sums by name; the trainer divides each by its own count over the whole optimiser step, and adds them."""

    terms: Mapping[str, Float[Tensor, ""]]
    metrics: Mapping[str, tuple[float | Tensor, float | Tensor]] = field(default_factory=dict)
    """(sum, count) by name, for the log."""
