"""Reward shaping: adjust rewards before advantages are computed. A reward of NaN (none applies) stays NaN."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from mmpost.config.settings import Settings
from mmpost.core.columns import map_replies, number, numbers, token_mask, with_columns
from mmpost.errors import ColumnError
from mmpost.types import Context, Reply, Sample, Transform


class OverlongPenalty(Transform, Settings):
    """Add a penalty to rollouts that are close to the length limit (soft overlong punishment, DAPO, arXiv 2503.14476).

    The penalty is 0 up to max_tokens - buffer tokens, decreases linearly to -factor at max_tokens, and stays there.
    """

    makes: ClassVar[tuple[str, ...]] = ("reward",)

    max_tokens: int = Field(gt=0)
    """Length in tokens at which the penalty is full: usually sampling.max_tokens."""
    buffer: int = Field(gt=0)
    """Number of tokens over which the penalty grows."""
    factor: float = Field(default=1.0, ge=0)
    """The full penalty."""

    @model_validator(mode="after")
    def _consistent(self) -> OverlongPenalty:
        if self.buffer > self.max_tokens:
            raise ValueError(f"buffer={self.buffer} must not exceed max_tokens={self.max_tokens}")
        return self

    def penalty(self, tokens: int) -> float:
        """The penalty, at most 0, of a reply with this many tokens."""
        over = tokens - (self.max_tokens - self.buffer)
        return -self.factor * min(1.0, max(0.0, over / self.buffer))

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        def penalize(sample: Sample, reply: Reply) -> Reply:
            if reply.origin == "truth":
                return reply
            penalty = self.penalty(len(reply.token_ids or ()))
            context.log("reward/overlong", penalty)
            return with_columns(reply, reward=number(sample, reply, "reward", "Score") + penalty)

        return map_replies(samples, penalize)


class LengthReward(Transform, Settings):
    """Add a reward for correct replies that are short compared with the rest of the batch (Reason-RFT).

    With c the characters of a reply, s and l those of the shortest and longest rollout of the batch (over all ranks):
    x = 0.5 - (c - s) / (l - s), or 0 if all are equally long. A correct reply gets factor * x, a wrong one
    factor * min(0, x).
    """

    makes: ClassVar[tuple[str, ...]] = ("reward",)

    score: str
    """The score that tells whether a reply is correct: 1 is correct, less is wrong."""
    after: int = Field(default=800, ge=0)
    """Steps of the run before this reward sets in."""
    factor: float = Field(default=0.05, ge=0)
    """Scale of this reward."""

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
        shortest, longest = min(lengths, default=0.0), max(lengths, default=0.0)

        def add_length_reward(sample: Sample, reply: Reply) -> Reply:
            if reply.origin == "truth" or self.score not in reply.scores:
                return reply
            x = 0.5 - (len(reply.text) - shortest) / (longest - shortest) if longest > shortest else 0.0
            length_reward = self.factor * (x if reply.scores[self.score] >= 1 else min(0.0, x))
            context.log("reward/length", length_reward)
            return with_columns(reply, reward=number(sample, reply, "reward", "Score") + length_reward)

        return map_replies(samples, add_length_reward)


class ClipReward(Transform, Settings):
    """Clip rewards to [low, high]."""

    makes: ClassVar[tuple[str, ...]] = ("reward",)

    low: float
    """Lower bound."""
    high: float
    """Upper bound."""

    @model_validator(mode="after")
    def _consistent(self) -> ClipReward:
        if self.low >= self.high:
            raise ValueError(f"low={self.low} must be below high={self.high}")
        return self

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        def clip(sample: Sample, reply: Reply) -> Reply:
            value = number(sample, reply, "reward", "Score")
            return reply if math.isnan(value) else with_columns(reply, reward=min(max(value, self.low), self.high))

        return map_replies(samples, clip)


class KLReward(Transform, Settings):
    """KL penalty in the reward: r - beta * sum of the KL estimate over trained tokens, from old_logp and ref_logp.

    An injected truth is penalized like every other reply. With `per_token`, the reward is unchanged and "kl_penalty" is
    written instead.
    """

    makes: ClassVar[tuple[str, ...]] = ("reward", "kl_penalty")

    beta: float = Field(gt=0)
    """Weight of the penalty."""
    estimator: Literal["k1", "k2", "k3", "abs"] = "k1"
    """With d = old_logp - ref_logp of a token: k1 = d (can be < 0), k2 = d^2 / 2, k3 = exp(-d) - 1 + d, abs = |d|."""
    per_token: bool = False
    """Write -beta times the estimate of each token to "kl_penalty", for GlobalWhiten(penalty=True)."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        def penalize(sample: Sample, reply: Reply) -> Reply:
            old = numbers(sample, reply, "old_logp", "OldLogprobs")
            ref = numbers(sample, reply, "ref_logp", "ReferenceLogprobs")
            mask = token_mask(reply)
            kl = [m * self._estimate(o - r) for o, r, m in zip(old, ref, mask, strict=True)]
            if reply.origin != "truth" and sum(mask):
                context.log("reward/kl", math.fsum(kl) / sum(mask), sum(mask))
            if self.per_token:
                return with_columns(reply, kl_penalty=[-self.beta * x for x in kl])
            return with_columns(reply, reward=number(sample, reply, "reward", "Score") - self.beta * math.fsum(kl))

        return map_replies(samples, penalize)

    def _estimate(self, d: float) -> float:
        match self.estimator:
            case "k1":
                return d
            case "k2":
                return d * d / 2
            case "k3":
                # Bounded as in the loss: a single token must not overflow the reward.
                return math.exp(min(-d, 20.0)) - 1 + d
            case "abs":
                return abs(d)
