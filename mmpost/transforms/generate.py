"""Replies from the policy."""

from __future__ import annotations

from typing import ClassVar

from mmpost.config.settings import Settings
from mmpost.types import Context, Sample, Sampling


class Generate(Settings):
    """Append n sampled replies to each sample."""

    makes: ClassVar[tuple[str, ...]] = ("behaviour_logp", "temperature", "truncated")
    clock: ClassVar[str] = "rollout"

    n: int
    """Replies per prompt."""
    sampling: Sampling
    """How they are drawn."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        samples = context.generate(samples, self.n, self.sampling)
        for reply in (r for s in samples for r in s.replies[-self.n :]):
            assert reply.token_ids is not None
            context.log("reply/length", len(reply.token_ids))
            context.log("reply/truncated", float(reply.columns["truncated"]))  # type: ignore[arg-type]
        return samples
