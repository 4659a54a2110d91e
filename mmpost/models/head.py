"""From hidden states to log-probabilities, a chunk of tokens at a time: whole logits never exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Entropy = Literal["none", "value", "gradient"]
Logits = Callable[[Float[Tensor, "tok dim"]], Float[Tensor, "tok vocab"]]


def processed(
    logits: Float[Tensor, "tok vocab"], temperature: Float[Tensor, " tok"], banned: Bool[Tensor, " vocab"]
) -> Float[Tensor, "tok vocab"]:
    """Log-probabilities of the distribution that replies are drawn from: fp32, banned tokens out, over temperature.

    Every pass uses it, so that behaviour, old, reference and current log-probs of the same weights agree. Banned
    tokens get a large negative number rather than -inf, which would make 0 * inf in the entropy.
    """
    logits = (logits.float() / temperature[:, None]).masked_fill(banned, -1e30)
    return logits - logits.logsumexp(-1, keepdim=True)


def token_statistics(
    hidden: Float[Tensor, "tok dim"],
    targets: Int[Tensor, " tok"],
    temperature: Float[Tensor, " tok"],
    logits: Logits,
    banned: Bool[Tensor, " vocab"],
    chunk: int,
    entropy: Entropy = "none",
) -> tuple[Float[Tensor, " tok"], Float[Tensor, " tok"] | None]:
    """Log-probability of each target, and the entropy of its distribution if asked for, with or without gradient.

    With gradients on, a chunk's logits are made again in the backward pass instead of being kept.
    """

    def piece(h: Tensor, t: Tensor, temp: Tensor) -> tuple[Tensor, Tensor]:
        logp = processed(logits(h), temp, banned)
        picked = logp.gather(-1, t[:, None]).squeeze(-1)
        if entropy == "none":
            return picked, picked.detach()
        logp = logp if entropy == "gradient" else logp.detach()
        return picked, -(logp.exp() * logp).sum(-1)

    pieces = []
    for h, t, temp in zip(hidden.split(chunk), targets.split(chunk), temperature.split(chunk), strict=True):
        if torch.is_grad_enabled() and len(hidden) > chunk:
            pieces.append(checkpoint(piece, h, t, temp, use_reentrant=False))
        else:
            pieces.append(piece(h, t, temp))
    picked = torch.cat([p for p, _ in pieces])
    return picked, None if entropy == "none" else torch.cat([e for _, e in pieces])
