"""Inputs of the preference losses, and the arithmetic that several of them share.

w is the chosen reply of a pair and l the rejected one; n counts trained tokens; r is the log-ratio of policy to
reference over the whole reply, before beta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

Numbers = Float[Tensor, " pair"]
Divergence = Literal["reverse_kl", "forward_kl", "js", "alpha"]

MAX_EXPONENT = 80.0
"""Exponents are clamped here: exp(80) is finite in fp32, exp(89) is not. There is no gradient above it."""


@dataclass(frozen=True)
class Pairs:
    """Log-probs and lengths of pairs of replies, each [pair]."""

    logp_w: Numbers
    """Log-prob of the chosen reply: the sum over its trained tokens."""
    logp_l: Numbers
    ref_w: Numbers
    """The same under the reference policy; 0 for reference-free losses."""
    ref_l: Numbers
    n_w: Numbers
    """Trained tokens of the chosen reply."""
    n_l: Numbers

    @property
    def r_w(self) -> Numbers:
        """Log-ratio of policy to reference for the chosen reply."""
        return self.logp_w - self.ref_w

    @property
    def r_l(self) -> Numbers:
        """Log-ratio of policy to reference for the rejected reply."""
        return self.logp_l - self.ref_l

    @property
    def mean_w(self) -> Numbers:
        """Log-prob per token of the chosen reply."""
        return self.logp_w / self.n_w

    @property
    def mean_l(self) -> Numbers:
        """Log-prob per token of the rejected reply."""
        return self.logp_l / self.n_l


@dataclass(frozen=True)
class LabeledReplies:
    """Single replies labeled good or bad, for the unpaired losses."""

    r: Float[Tensor, " reply"]
    """Log-ratio of policy to reference over the whole reply."""
    good: Bool[Tensor, " reply"]
    z: Float[Tensor, ""]
    """KTO's reference point: the mean of r over mismatched replies, at least 0; 0 for losses without one."""


@dataclass(frozen=True)
class Options:
    """Hyper-parameters of the formulas; `Preference` documents each, and a form's `options` lists those it reads."""

    beta: float
    smoothing: float = 0.0
    gamma: float = 0.0
    shape: float = 0.25
    tau: float = 0.05
    length: float = 0.05
    penalty: float = 50.0
    summed: bool = False
    divergence: Divergence = "reverse_kl"
    order: float = 0.5


def divergence_score(r: Numbers, o: Options) -> Numbers:
    """g(r) = f'(exp(r)) of the chosen f-divergence (f-DPO, Wang et al. 2023, arXiv 2309.16240), [pair].

    reverse_kl: r; forward_kl: 1 - exp(-r); js: ln 2 + ls(r); alpha: (exp((a - 1) r) - 1) / (a - 1), or r at a = 1.
    """
    match o.divergence:
        case "reverse_kl":
            return r
        case "forward_kl":
            return 1 - (-r).clamp(max=MAX_EXPONENT).exp()
        case "js":
            return math.log(2) + logsigmoid(r)
        case "alpha":
            a = o.order - 1
            return r if abs(a) < 1e-6 else ((a * r).clamp(max=MAX_EXPONENT).exp() - 1) / a


def margin(p: Pairs, o: Options) -> Numbers:
    """D = g(r_w) - g(r_l), over whole replies, [pair]."""
    return divergence_score(p.r_w, o) - divergence_score(p.r_l, o)


def mean_margin(p: Pairs, o: Options) -> Numbers:
    """g(r_w) / n_w - g(r_l) / n_l, per token, [pair]."""
    return divergence_score(p.r_w, o) / p.n_w - divergence_score(p.r_l, o) / p.n_l


def smoothed_logistic(x: Numbers, e: float) -> Numbers:
    """-(1 - e) ls(x) - e ls(-x): the logistic loss when a fraction e of the labels is assumed to be flipped, [pair]."""
    return -(1 - e) * logsigmoid(x) - e * logsigmoid(-x) if e else -logsigmoid(x)


def log1mexp(x: Float[Tensor, " *any"]) -> Float[Tensor, " *any"]:
    """log(1 - exp(x)) for x <= 0, finite even at 0.

    Switches between two forms at -ln 2, each accurate on its side (Maechler 2012, "Accurately computing
    log(1 - exp(-|a|))").
    """
    x = x.clamp(max=-torch.finfo(x.dtype).tiny)
    near = x > -math.log(2)
    # Mask each form's argument, not only its result: in the backward pass, inf times 0 is NaN.
    close = torch.log(-torch.expm1(x.masked_fill(~near, -1.0)))
    far = torch.log1p(-torch.exp(x.masked_fill(near, -1.0)))
    return torch.where(near, close, far)


def log_odds_ratio(p: Pairs) -> Numbers:
    """ln of the ratio of the odds p / (1 - p) of the two replies, p = exp(log-prob per token), [pair]."""
    return (p.mean_w - p.mean_l) - (log1mexp(p.mean_w) - log1mexp(p.mean_l))


def alpha_reward(mean: Numbers, o: Options) -> Numbers:
    """(1 - p^-a) / a with p = exp(mean) and a = `shape`: AlphaPO's reward; the log-prob itself at a = 0, [pair]."""
    return -torch.expm1((-o.shape * mean).clamp(max=MAX_EXPONENT)) / o.shape if o.shape else mean
