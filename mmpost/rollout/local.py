"""Sampling with the training model, in process."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmpost.errors import ConfigError
from mmpost.types import Model, Reply, ReplyDecoder, Sample, Sampling

COMPACT_BELOW = 0.75
"""Remove finished replies from the batch once at most this fraction is unfinished; each removal copies the KV cache."""


class LocalRollout:
    """Samples replies with a model's decoder, at most `replies` at a time."""

    def __init__(self, model: Model | ReplyDecoder, replies: int = 192) -> None:
        self.model, self.replies = model, replies

    def generate(self, samples: Sequence[Sample], n: int, sampling: Sampling, seed: int) -> list[Sample]:
        """Append `n` replies of origin "policy" to each sample.

        Each has its token ids (end of turn included) and the columns `behaviour_logp` (per token, at the sampling
        temperature), `temperature` and `truncated`. What is sampled depends on the weights, `seed` and the sample's
        uid, but not on the other samples of the batch. Raises ConfigError for a model that does not generate.
        """
        with_replies = []
        times: Counter[str] = Counter()
        keys = []
        for sample in samples:  # copies of a sample get different replies
            keys.append(f"{sample.uid}/{times[sample.uid]}" if times[sample.uid] else sample.uid)
            times[sample.uid] += 1
        size = max(1, self.replies // n)
        for start in range(0, len(samples), size):
            chunk = samples[start : start + size]
            replies = self._sample(chunk, keys[start : start + size], n, sampling, seed)
            with_replies += [replace(s, replies=(*s.replies, *replies[i * n : i * n + n])) for i, s in enumerate(chunk)]
        return with_replies

    def _sample(
        self, samples: Sequence[Sample], keys: Sequence[str], n: int, sampling: Sampling, seed: int
    ) -> list[Reply]:
        """`n` replies to each sample, sample after sample."""
        if not isinstance(self.model, ReplyDecoder):
            raise ConfigError(
                f"wanted a model that writes replies, found {type(self.model).__name__}; use a chat model, or a task "
                "and benches without replies"
            )
        decoder = self.model.decoder(samples, n)
        ends = torch.tensor(self.model.recipe.end)
        uniform = torch.cat([_uniform(seed, key, n, sampling.max_tokens) for key in keys])
        logits = decoder.start()
        logits = logits.repeat_interleave(n, 0)
        # The reply that each row of the decoder's batch extends; -1 for a finished one that is still in the batch.
        live = torch.arange(len(uniform))
        tokens: list[list[int]] = [[] for _ in live]
        logps: list[list[float]] = [[] for _ in live]
        temperature = sampling.temperature or 1.0
        for t in range(sampling.max_tokens):
            logp = decoder.distribution(logits, temperature)
            token = _choose(logp, sampling, uniform[live, t].to(logp.device))
            picked = logp.gather(1, token[:, None]).squeeze(1).tolist()
            chosen = token.tolist()
            for i, row in enumerate(live.tolist()):
                if row >= 0:
                    tokens[row].append(chosen[i])
                    logps[row].append(picked[i])
            alive = ~torch.isin(token.cpu(), ends) & (live >= 0)
            if not alive.any() or t + 1 == sampling.max_tokens:
                break
            if alive.sum() <= COMPACT_BELOW * len(alive):
                index = alive.nonzero().squeeze(1)
                decoder.keep(index.to(token.device))
                token, live = token[index.to(token.device)], live[index]
            else:
                live = torch.where(alive, live, -1)
            logits = decoder.step(token)
        stops = set(self.model.recipe.end)
        return [
            replace(
                self.model.decode_reply(ids),
                columns={
                    "behaviour_logp": logp,
                    "temperature": temperature,
                    "truncated": float(ids[-1] not in stops),
                },
            )
            for ids, logp in zip(tokens, logps, strict=True)
        ]


def _uniform(seed: int, uid: str, n: int, length: int) -> Float[Tensor, "n length"]:
    """Uniform random numbers for n replies to one sample, a function of (seed, uid) only.

    float64: fp32 numbers are too coarse to hit the tail of a large vocabulary.
    """
    digest = hashlib.sha256(f"{seed}/{uid}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.rand(n, length, generator=generator, dtype=torch.float64)


def _choose(
    logp: Float[Tensor, "live vocab"], sampling: Sampling, uniform: Float[Tensor, " live"]
) -> Int[Tensor, " live"]:
    """The next token of each reply: argmax at temperature 0, else by inverse transform sampling of top-k / top-p."""
    if sampling.temperature == 0:
        return logp.argmax(-1)
    if sampling.top_k == 0 and sampling.top_p == 1.0:
        cumulative = logp.double().exp().cumsum(-1)
        hit = torch.searchsorted(cumulative, (uniform * cumulative[:, -1])[:, None], right=True)
        return hit.squeeze(1).clamp(max=logp.shape[1] - 1)
    ordered, index = logp.double().exp().sort(-1, descending=True)
    keep = ordered.cumsum(-1) - ordered < sampling.top_p  # probability before this token: the first is always kept
    if sampling.top_k:
        keep[:, sampling.top_k :] = False
    cumulative = ordered.masked_fill(~keep, 0.0).cumsum(-1)
    hit = torch.searchsorted(cumulative, (uniform * cumulative[:, -1])[:, None], right=True)
    return index.gather(1, hit.clamp(max=logp.shape[1] - 1)).squeeze(1)
