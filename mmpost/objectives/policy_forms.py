"""The policy-gradient losses: surrogates, and a row of `FORMS` for each published loss.

To add a loss, write a row below; if its surrogate is new too, write the function and put a `Surrogate` into the row.
`PolicyLoss` takes the row's name as `loss_type` and the surrogate's name as `surrogate`. All tensors hold zeros where
the mask is zero, and nothing is differentiated through the advantages.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmpost.objectives.kl import MAX_LOG_RATIO
from mmpost.types import Batch

RatioLevel = Literal["token", "sequence_mean", "sequence_sum"]
Reduction = Literal["reply_mean", "reply_sum", "step_tokens", "rollout_tokens", "constant"]
Tokens = Float[Tensor, " tok"]

MIN_LOG_WEIGHT = math.log(1e-8)
"""Lower bound of sequence log-weights, so that a masked sequence (weight 0) stays finite."""


@dataclass(frozen=True)
class PolicyTokens:
    """What a surrogate is a function of, for one micro-batch."""

    ratio: Tokens
    """pi / pi_old, at the level of the loss."""
    logp: Tokens
    old: Tokens
    advantage: Tokens
    mask: Tokens
    batch: Batch
    sequence_log_weight: Float[Tensor, " reply"] | None = None
    """ln(pi_old / pi_sampler) of each reply, where `mismatch` is on."""


@dataclass(frozen=True)
class PolicyOptions:
    """Hyper-parameters of the surrogates; `PolicyLoss` documents each."""

    low: float
    high: float
    delta: float | None = None
    cispo_floor: float = 0.0
    cispo_cap: float = 5.0
    sapo_positive: float = 1.0
    sapo_negative: float = 1.05
    vespo_positive: tuple[float, float] = (2.0, 3.0)
    vespo_negative: tuple[float, float] = (3.0, 2.0)


def clip(x: PolicyTokens, o: PolicyOptions) -> Tokens:
    """-min(min(c, delta) A, clip(c, 1 - low, 1 + high) A), [tok]: PPO's pessimistic bound; dual clip with `delta`.

    PPO: Schulman et al. 2017, arXiv 1707.06347; dual clip: Ye et al. 2019, arXiv 1912.09729.
    """
    bounded = x.ratio if o.delta is None else x.ratio.clamp(max=o.delta)
    return -torch.minimum(bounded * x.advantage, x.ratio.clamp(1 - o.low, 1 + o.high) * x.advantage)


def cispo(x: PolicyTokens, o: PolicyOptions) -> Tokens:
    """-sg(clip(c, floor, cap)) A logp, [tok]: the ratio is a bounded weight, so every token keeps its gradient."""
    return -x.ratio.detach().clamp(o.cispo_floor, o.cispo_cap) * x.advantage * x.logp


def sapo(x: PolicyTokens, o: PolicyOptions) -> Tokens:
    """-(4 / tau) s(tau (c - 1)) A, [tok], with tau by the sign of the advantage: a soft gate instead of a clip."""
    tau = torch.where(x.advantage > 0, o.sapo_positive, o.sapo_negative)
    return -torch.sigmoid(tau * (x.ratio - 1)) * 4 / tau * x.advantage


def vespo(x: PolicyTokens, o: PolicyOptions) -> Tokens:
    """-sg(phi(w)) A logp, [tok], phi(w) = exp(lam + k ln w - lam w), with (k, lam) by the sign of the advantage.

    w is the product of a reply's token ratios pi / pi_old, times pi_old / pi_sampler where `mismatch` is on. ln w is
    the sum of log-ratios each clamped to +-20, and is clamped to [ln 1e-8, 20] itself.
    """
    log_ratio = (x.logp - x.old).detach().clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    log_w = x.batch.sum(log_ratio * x.mask)
    if x.sequence_log_weight is not None:
        log_w = log_w + x.sequence_log_weight
    log_w = log_w.detach().clamp(MIN_LOG_WEIGHT, MAX_LOG_RATIO)[x.batch.reply_of]
    good = x.advantage >= 0
    k = torch.where(good, o.vespo_positive[0], o.vespo_negative[0])
    lam = torch.where(good, o.vespo_positive[1], o.vespo_negative[1])
    return -(lam + k * log_w - lam * log_w.exp()).exp() * x.advantage * x.logp


@dataclass(frozen=True)
class Surrogate:
    """A per-token loss as a function of the probability ratio and the advantage."""

    name: str
    function: Callable[[PolicyTokens, PolicyOptions], Tokens]
    options: tuple[str, ...] = ()
    """Fields of `PolicyLoss` that only this surrogate reads."""
    clip_range: Callable[[PolicyOptions], tuple[float, float]] | None = None
    """How far below and above 1 the ratio is cut, for the clip metrics; None: it is not."""
    reads_sampler_weight: bool = False
    """It uses `sequence_log_weight` itself, and is not multiplied by the weight for a mismatched sampler."""


CLIP = Surrogate("clip", clip, options=("clip_low", "clip_high", "delta"), clip_range=lambda o: (o.low, o.high))
CISPO = Surrogate(
    "cispo",
    cispo,
    options=("cispo_floor", "cispo_cap"),
    clip_range=lambda o: (1 - o.cispo_floor, o.cispo_cap - 1),
)
SAPO = Surrogate("sapo", sapo, options=("sapo_positive", "sapo_negative"))
VESPO = Surrogate("vespo", vespo, options=("vespo_positive", "vespo_negative"), reads_sampler_weight=True)


@dataclass(frozen=True)
class PolicyForm:
    """A published loss: its surrogate, probability ratio, reduction and clip range."""

    surrogate: Surrogate = CLIP
    ratio: RatioLevel = "token"
    reduction: Reduction = "reply_mean"
    low: float = 0.2
    high: float | None = None
    """None: the same as `low`."""
    paper: str = field(default="", compare=False)


# fmt: off
FORMS: dict[str, PolicyForm] = {
    "grpo": PolicyForm(paper="Shao et al. 2024 (DeepSeekMath), arXiv 2402.03300"),
    "bnpo": PolicyForm(reduction="step_tokens", paper="token mean over the step, as TRL's bnpo"),
    "dr_grpo": PolicyForm(reduction="constant", paper="Liu et al. 2025, arXiv 2503.20783"),
    "dapo": PolicyForm(reduction="rollout_tokens", high=0.28, paper="Yu et al. 2025, arXiv 2503.14476"),
    "gspo": PolicyForm(ratio="sequence_mean", low=3e-4, high=4e-4, paper="Zheng et al. 2025, arXiv 2507.18071"),
    "luspo": PolicyForm(ratio="sequence_mean", reduction="reply_sum", paper="arXiv 2602.05261"),
    "rloo": PolicyForm(ratio="sequence_sum", paper="Ahmadian et al. 2024, arXiv 2402.14740"),
    "cispo": PolicyForm(CISPO, reduction="rollout_tokens", paper="MiniMax-M1 2025, arXiv 2506.13585"),
    "sapo": PolicyForm(SAPO, paper="arXiv 2511.20347"),
    "vespo": PolicyForm(VESPO, reduction="rollout_tokens", paper="arXiv 2602.10693"),
}
"""Losses by the name they have in the settings."""
# fmt: on


def surrogates() -> dict[str, Surrogate]:
    """The surrogates of all losses, by name."""
    return {form.surrogate.name: form.surrogate for form in FORMS.values()}


def probability_ratio(logp: Tokens, old: Tokens, mask: Tokens, batch: Batch, level: RatioLevel) -> Tokens:
    """pi / pi_old, [tok]: of each token, or of its reply as geometric mean (GSPO) or product (RLOO) over the tokens.

    Its logarithm is clamped to +-20; there is no gradient beyond.
    """
    log_ratio = logp - old
    if level != "token":
        total = batch.sum(log_ratio * mask)
        if level == "sequence_mean":
            total = total / batch.lengths(mask)
        log_ratio = total[batch.reply_of]
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def sampler_log_weight(
    gap: Tokens,
    mask: Tokens,
    batch: Batch,
    level: Literal["token", "sequence", "geometric"],
    action: Literal["truncate", "mask"],
    bounds: tuple[float, float],
) -> tuple[Tokens, Float[Tensor, " reply"]]:
    """ln of the importance weight pi_old / pi_sampler: [tok], and its sum over each reply, [reply].

    `gap` is ln pi_old - ln pi_sampler of each token. The weight is that of the token, of the reply (the product over
    its tokens) or 1 or 0 by the geometric mean over its tokens. Outside `bounds` it is set to the bound ("truncate") or
    to 0 ("mask").
    """
    low, high = (math.log(b) if b > 0 else -math.inf for b in bounds)
    log_ratio = gap
    if level != "token":
        log_ratio = batch.sum(gap * mask)
    if level == "geometric":
        log_ratio = log_ratio / batch.lengths(mask)
    if action == "truncate":
        log_weight = log_ratio.clamp(low, high)
    else:
        value = torch.zeros_like(log_ratio) if level == "geometric" else log_ratio
        log_weight = value.masked_fill((log_ratio < low) | (log_ratio > high), -math.inf)
    if level == "token":
        return log_weight, batch.sum(log_weight.clamp(MIN_LOG_WEIGHT, MAX_LOG_RATIO) * mask)
    return log_weight[batch.reply_of], log_weight.clamp(MIN_LOG_WEIGHT, MAX_LOG_RATIO)
