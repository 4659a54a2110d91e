"""Changes of the reward between scoring and credit. A reward of NaN (unscorable) stays NaN."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from mmpost.config.settings import Settings
from mmpost.errors import ColumnError
from mmpost.transforms.columns import map_replies, number, numbers, token_mask, with_columns
from mmpost.types import Context, Reply, Sample, Transform


class OverlongPenalty(Transform, Settings):
    """Add a penalty that grows with the length of a rollout near the limit (DAPO's soft overlong punishment).

    With n tokens: 0 up to max_tokens - buffer, then linearly down to -factor at max_tokens, and -factor above.
    """

    makes: ClassVar[tuple[str, ...]] = ("reward",)

    max_tokens: int = Field(gt=0)
    """Where the penalty is full: usually the most tokens that are sampled."""
    buffer: int = Field(gt=0)
    """Over how many tokens it grows."""
    factor: float = Field(default=1.0, ge=0)
    """The full penalty."""

    @model_validator(mode="after")
    def _fits(self) -> OverlongPenalty:
        if self.buffer > self.max_tokens:
            raise ValueError(f"buffer={self.buffer} must not exceed max_tokens={self.max_tokens}")
        return self

    def penalty(self, tokens: int) -> float:
        """The number that a reply of this length gets on top."""
        over = tokens - (self.max_tokens - self.buffer)
        return -self.factor * min(1.0, max(0.0, over / self.buffer))

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        def punish(sample: Sample, reply: Reply) -> Reply:
            if reply.origin == "truth":
                return reply
            extra = self.penalty(len(reply.token_ids or ()))
            context.log("reward/overlong", extra)
            return with_columns(reply, reward=number(sample, reply, "reward", "Score") + extra)

        return map_replies(samples, punish)


class LengthReward(Transform, Settings):
    """Add a reward for short right replies, lengths being compared over the batch (the length reward of Reason-RFT).

    With c characters, shortest s and longest l of all rollouts of the batch: x = 0.5 - (c - s) / (l - s), 0 where all
    are as long; a right reply gets factor * x, a wrong one factor * min(0, x).
    """

    makes: ClassVar[tuple[str, ...]] = ("reward",)

    score: str
    """The score that says whether a reply is right: 1 is right, less is wrong."""
    after: int = Field(default=800, ge=0)
    """Steps of the run before it begins."""
    factor: float = Field(default=0.05, ge=0)
    """Weight."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        if context.step < self.after:
            return samples
        rollouts = [reply for sample in samples for reply in sample.replies if reply.origin != "truth"]
        if rollouts and not any(self.score in reply.scores for reply in rollouts):
            raise ColumnError(
                f"length_reward: wanted the score {self.score!r}, found "
                f"{', '.join(rollouts[0].scores) or 'none'}; name one of these"
            )
        lengths = context.gather([float(len(reply.text)) for reply in rollouts])
        short, long = min(lengths, default=0.0), max(lengths, default=0.0)

        def pay(sample: Sample, reply: Reply) -> Reply:
            if reply.origin == "truth" or self.score not in reply.scores:
                return reply
            x = 0.5 - (len(reply.text) - short) / (long - short) if long > short else 0.0
            extra = self.factor * (x if reply.scores[self.score] >= 1 else min(0.0, x))
            context.log("reward/length", extra)
            return with_columns(reply, reward=number(sample, reply, "reward", "Score") + extra)

        return map_replies(samples, pay)


class ClipReward(Transform, Settings):
    """Cut rewards to a range."""

    makes: ClassVar[tuple[str, ...]] = ("reward",)

    low: float
    """Least reward."""
    high: float
    """Largest reward."""

    @model_validator(mode="after")
    def _fits(self) -> ClipReward:
        if self.low >= self.high:
            raise ValueError(f"low={self.low} must be below high={self.high}")
        return self

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        def cut(sample: Sample, reply: Reply) -> Reply:
            value = number(sample, reply, "reward", "Score")
            return reply if math.isnan(value) else with_columns(reply, reward=min(max(value, self.low), self.high))

        return map_replies(samples, cut)


class KLReward(Transform, Settings):
    """KL against the reference as a part of the reward: r - beta * sum over trained tokens, from old_logp and ref_logp.

    The truth is charged like every other reply. With `per_token` the reward stays, and "kl_penalty" is written instead.
    """

    makes: ClassVar[tuple[str, ...]] = ("reward", "kl_penalty")

    beta: float = Field(gt=0)
    """Weight of the penalty."""
    estimator: Literal["k1", "k2", "k3", "abs"] = "k1"
    """With d = old_logp - ref_logp: k1 = d (may be negative), k2 = d^2 / 2, k3 = exp(-d) - 1 + d, abs = |d|."""
    per_token: bool = False
    """Write -beta times the estimator of each token as "kl_penalty", for GlobalWhiten(penalty=True)."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        def charge(sample: Sample, reply: Reply) -> Reply:
            old = numbers(sample, reply, "old_logp", "OldLogprobs")
            ref = numbers(sample, reply, "ref_logp", "ReferenceLogprobs")
            mask = token_mask(reply)
            kl = [m * self._estimate(o - r) for o, r, m in zip(old, ref, mask, strict=True)]
            if reply.origin != "truth" and sum(mask):
                context.log("reward/kl", math.fsum(kl) / sum(mask), sum(mask))
            if self.per_token:
                return with_columns(reply, kl_penalty=[-self.beta * x for x in kl])
            return with_columns(reply, reward=number(sample, reply, "reward", "Score") - self.beta * math.fsum(kl))

        return map_replies(samples, charge)

    def _estimate(self, d: float) -> float:
        match self.estimator:
            case "k1":
                return d
            case "k2":
                return d * d / 2
            case "k3":
                return math.exp(min(-d, 20.0)) - 1 + d
            case "abs":
                return abs(d)
