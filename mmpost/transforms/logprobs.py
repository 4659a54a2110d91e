"""Per-token log-probs of replies under fixed weights: the policy before the updates on a batch, and the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, cast

from mmpost.config.settings import Settings
from mmpost.types import Context, Sample, Sampling, Transform


class OldLogprobs(Transform, Settings):
    """Write `old_logp`: the log-probs under the policy before the updates on this rollout batch.

    Needed only if other transforms read the column: for an objective, the trainer keeps the old log-probs itself,
    mostly without an extra forward pass. Replies that were not sampled get `behaviour_logp` = `old_logp`, so that
    their train/inference mismatch weight is exactly 1.
    """

    makes: ClassVar[tuple[str, ...]] = ("old_logp",)
    timer: ClassVar[str] = "logp"

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return _with_logprobs(samples, context.logp(samples, "policy"), "old_logp", fallback_for="behaviour_logp")


class ReferenceLogprobs(Transform, Settings):
    """Write `ref_logp`: the log-probs under the stage's reference model (cached on disk for replies of the data)."""

    makes: ClassVar[tuple[str, ...]] = ("ref_logp",)
    timer: ClassVar[str] = "logp"
    requires_reference: ClassVar[bool] = True

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return _with_logprobs(samples, context.logp(samples, "reference"), "ref_logp")


class ScoreLogprobs(Transform, Settings):
    """Write the scores `nll`, the negative log-likelihood of the reply under the policy (nats), and `tokens`."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        out = []
        for sample, rows in zip(samples, context.logp(samples, "policy"), strict=True):
            pairs = zip(sample.replies, rows, strict=True)
            replies = [
                replace(r, scores={**r.scores, "nll": -sum(logp), "tokens": float(len(logp))}) for r, logp in pairs
            ]
            out.append(replace(sample, replies=tuple(replies)))
        return out


class KlFromStart(Transform, Settings):
    """Write the score `kl`: how far the policy is from the weights that the run started from, in nats per reply.

    The forward divergence KL(start || policy), which orders methods by what they forget (RL's Razor, Shenfeld et al.
    2025, arXiv 2509.04259), estimated by one reply per prompt that is sampled from the start: the log-probs of its
    tokens there minus those under the policy.
    """

    makes: ClassVar[tuple[str, ...]] = ("behaviour_logp", "temperature", "truncated")
    timer: ClassVar[str] = "logp"
    requires_start: ClassVar[bool] = True

    max_tokens: int
    """Maximum tokens of a reply."""

    def max_reply_tokens(self) -> int:
        return self.max_tokens

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        samples = context.generate(samples, 1, Sampling(max_tokens=self.max_tokens, temperature=1.0), of="start")
        out = []
        for sample, rows in zip(samples, context.logp(samples, "policy"), strict=True):
            *earlier, reply = sample.replies
            at_start = cast(Sequence[float], reply.columns["behaviour_logp"])
            reply = replace(reply, scores={**reply.scores, "kl": sum(at_start) - sum(rows[-1])})
            out.append(replace(sample, replies=(*earlier, reply)))
        return out


def _with_logprobs(
    samples: list[Sample], logprobs: list[list[list[float]]], name: str, fallback_for: str | None = None
) -> list[Sample]:
    """The samples with column `name`, and with the same values in column `fallback_for` of replies that lack it.

    `logprobs` has the shape [sample][reply][tok].
    """
    out = []
    for sample, rows in zip(samples, logprobs, strict=True):
        replies = []
        for reply, logp in zip(sample.replies, rows, strict=True):
            fallback = {} if fallback_for is None or fallback_for in reply.columns else {fallback_for: logp}
            replies.append(replace(reply, columns={**reply.columns, **fallback, name: logp}))
        out.append(replace(sample, replies=tuple(replies)))
    return out
