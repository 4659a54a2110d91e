"""Sample replies from the policy."""

from __future__ import annotations

from typing import ClassVar

from mmpost.config.settings import Settings
from mmpost.types import Context, Sample, Sampling, Transform


class Generate(Transform, Settings):
    """Append n sampled replies to each sample; logs their length in tokens and the fraction that was truncated."""

    makes: ClassVar[tuple[str, ...]] = ("behaviour_logp", "temperature", "truncated")
    timer: ClassVar[str] = "rollout"

    n: int
    """Replies per prompt."""
    sampling: Sampling
    """Sampling parameters."""

    def max_reply_tokens(self) -> int:
        return self.sampling.max_tokens

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        samples = context.generate(samples, self.n, self.sampling)
        for reply in (r for s in samples for r in s.replies[-self.n :]):
            assert reply.token_ids is not None
            context.log("reply/length", len(reply.token_ids))
            context.log("reply/truncated", float(reply.columns["truncated"]))  # type: ignore[arg-type]
        return samples


def greedy(max_tokens: int) -> Generate:
    """Greedy decoding of one reply per sample with at most `max_tokens` tokens: what benches usually evaluate."""
    return Generate(n=1, sampling=Sampling(max_tokens=max_tokens, temperature=0))
