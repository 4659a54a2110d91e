"""The parts that policy losses are made of: ratios, surrogates, and weights for a mismatched sampler.

All arguments have zeros where the mask is zero. `advantage` is never differentiated.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmpost.objectives.kl import CLAMP
from mmpost.objectives.reduction import lengths
from mmpost.types import Batch

Level = Literal["token", "sequence_mean", "sequence_sum"]
Tokens = Float[Tensor, " tok"]

TINY = math.log(1e-8)


def ratio(logp: Tokens, old: Tokens, mask: Tokens, batch: Batch, level: Level) -> Tokens:
    """pi / pi_old of each token, or of its whole reply: geometric mean (GSPO) or product (RLOO) over the tokens.

    Its logarithm is clamped to +-20, where the gradient ends.
    """
    log_ratio = logp - old
    if level != "token":
        total = batch.sum(log_ratio * mask)
        if level == "sequence_mean":
            total = total / lengths(batch, mask)
        log_ratio = total[batch.reply_of]
    return log_ratio.clamp(-CLAMP, CLAMP).exp()


def clip(c: Tokens, advantage: Tokens, low: float, high: float, delta: float | None) -> Tokens:
    """-min(min(c, delta) A, clip(c, 1 - low, 1 + high) A): PPO's pessimistic bound, two-sided with `delta`."""
    bounded = c if delta is None else c.clamp(max=delta)
    return -torch.minimum(bounded * advantage, c.clamp(1 - low, 1 + high) * advantage)


def cispo(c: Tokens, logp: Tokens, advantage: Tokens, floor: float, cap: float) -> Tokens:
    """-sg(clip(c, floor, cap)) A logp: the ratio is a bounded weight, and every token keeps its gradient."""
    return -c.detach().clamp(floor, cap) * advantage * logp


def sapo(c: Tokens, advantage: Tokens, positive: float, negative: float) -> Tokens:
    """-(4 / tau) sigmoid(tau (c - 1)) A, with tau by the sign of the advantage: a soft gate instead of a clip."""
    tau = torch.where(advantage > 0, positive, negative)
    return -torch.sigmoid(tau * (c - 1)) * 4 / tau * advantage


def vespo(
    logp: Tokens,
    advantage: Tokens,
    log_w: Float[Tensor, " reply"],
    batch: Batch,
    positive: tuple[float, float],
    negative: tuple[float, float],
) -> Tokens:
    """-sg(phi(w)) A logp, phi(w) = exp(lam + k ln w - lam w), with (k, lam) by the sign of the advantage.

    ln w is clamped to [ln 1e-8, 20].
    """
    log_w = log_w.detach().clamp(TINY, CLAMP)[batch.reply_of]
    good = advantage >= 0
    k = torch.where(good, positive[0], negative[0])
    lam = torch.where(good, positive[1], negative[1])
    return -(lam + k * log_w - lam * log_w.exp()).exp() * advantage * logp


def sequence_log_ratio(logp: Tokens, old: Tokens, mask: Tokens, batch: Batch) -> Float[Tensor, " reply"]:
    """ln of the product of the token ratios, each clamped to +-20 in the logarithm: VESPO's w."""
    return batch.sum((logp - old).detach().clamp(-CLAMP, CLAMP) * mask)


def mismatch(
    gap: Tokens,
    mask: Tokens,
    batch: Batch,
    level: Literal["token", "sequence", "geometric"],
    action: Literal["truncate", "mask"],
    bounds: tuple[float, float],
) -> tuple[Tokens, Float[Tensor, " reply"]]:
    """ln of the weight pi_old / pi_sampler of each token, and the same summed up once per reply.

    `gap` is ln pi_old - ln pi_sampler. The ratio is that of the token, of the whole reply, or the geometric mean over
    its tokens; the last decides only whether a reply counts (weight 1 or 0). Outside `bounds` the weight is cut to the
    bound (truncate) or 0 (mask).
    """
    low, high = (math.log(b) if b > 0 else -math.inf for b in bounds)
    log_ratio = gap
    if level != "token":
        log_ratio = batch.sum(gap * mask)
    if level == "geometric":
        log_ratio = log_ratio / lengths(batch, mask)
    if action == "truncate":
        log_weight = log_ratio.clamp(low, high)
    else:
        value = torch.zeros_like(log_ratio) if level == "geometric" else log_ratio
        log_weight = value.masked_fill((log_ratio < low) | (log_ratio > high), -math.inf)
    if level == "token":
        return log_weight, batch.sum(log_weight.clamp(TINY, CLAMP) * mask)
    return log_weight[batch.reply_of], log_weight.clamp(TINY, CLAMP)
