"""Log-probabilities of replies under fixed weights: the policy before it moves, and the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from mmpost.config.settings import Settings
from mmpost.types import Context, Sample, Transform


class OldLogprobs(Transform, Settings):
    """Write `old_logp`: the log-probs under the policy as it is now, before the updates on this rollout batch.

    Only where other transforms read them: for an objective the trainer remembers them, mostly without a pass.
    Replies that were not sampled get `behaviour_logp` equal to it, so that a correction for the rollout engine is
    exactly 1 for them.
    """

    makes: ClassVar[tuple[str, ...]] = ("old_logp",)
    timer: ClassVar[str] = "logp"

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return _write(samples, context.logp(samples, "policy"), "old_logp", "behaviour_logp")


class ReferenceLogprobs(Transform, Settings):
    """Write `ref_logp`: the log-probs under the weights of the stage's reference; for data from disk, if there."""

    makes: ClassVar[tuple[str, ...]] = ("ref_logp",)
    timer: ClassVar[str] = "logp"
    requires_reference: ClassVar[bool] = True

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return _write(samples, context.logp(samples, "reference"), "ref_logp")


class ScoreLogprobs(Transform, Settings):
    """Score each reply by its own log-probs: `nll` (their negative sum, in nats) and `tokens`."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        out = []
        for sample, rows in zip(samples, context.logp(samples, "policy"), strict=True):
            pairs = zip(sample.replies, rows, strict=True)
            replies = [
                replace(r, scores={**r.scores, "nll": -sum(logp), "tokens": float(len(logp))}) for r, logp in pairs
            ]
            out.append(replace(sample, replies=tuple(replies)))
        return out


def _write(
    samples: list[Sample], values: list[list[list[float]]], name: str, default: str | None = None
) -> list[Sample]:
    out = []
    for sample, rows in zip(samples, values, strict=True):
        replies = []
        for reply, logp in zip(sample.replies, rows, strict=True):
            more = {} if default is None or default in reply.columns else {default: logp}
            replies.append(replace(reply, columns={**reply.columns, **more, name: logp}))
        out.append(replace(sample, replies=tuple(replies)))
    return out
