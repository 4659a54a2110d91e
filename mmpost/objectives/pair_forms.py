"""Preference losses as formulas over the numbers of each pair: no tokens, no batches, no reductions.

w is the chosen reply of a pair, l the rejected one; n counts trained tokens, r is the log-ratio of policy and
reference over the whole reply (not multiplied by beta), D = g(r_w) - g(r_l) with g the choice of divergence. Where
published versions disagree, docs/preference.md says which one this is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

Numbers = Float[Tensor, " pair"]
Divergence = Literal["reverse_kl", "forward_kl", "js", "alpha"]

CEILING = 80.0
"""Bound of exponents; beyond it there is no gradient."""


@dataclass(frozen=True)
class Pairs:
    """What the policy and the reference say of each pair."""

    logp_w: Numbers
    """Log-prob of the whole reply: the sum over its trained tokens."""
    logp_l: Numbers
    ref_w: Numbers
    """The same under the reference; 0 for losses without one."""
    ref_l: Numbers
    n_w: Numbers
    n_l: Numbers

    @property
    def r_w(self) -> Numbers:
        return self.logp_w - self.ref_w

    @property
    def r_l(self) -> Numbers:
        return self.logp_l - self.ref_l

    @property
    def mean_w(self) -> Numbers:
        """Log-prob per token."""
        return self.logp_w / self.n_w

    @property
    def mean_l(self) -> Numbers:
        return self.logp_l / self.n_l


@dataclass(frozen=True)
class Options:
    """Numbers that the formulas take besides; each form says which."""

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


def divergent(r: Numbers, o: Options) -> Numbers:
    """g(r): the derivative of the divergence's f at the ratio exp(r), with its constants.

    reverse_kl r; forward_kl 1 - exp(-r); js ln 2 + ls(r); alpha (exp((a - 1) r) - 1) / (a - 1), which is r at a = 1.
    """
    match o.divergence:
        case "reverse_kl":
            return r
        case "forward_kl":
            return 1 - (-r).clamp(max=CEILING).exp()
        case "js":
            return math.log(2) + logsigmoid(r)
        case "alpha":
            a = o.order - 1
            return r if abs(a) < 1e-6 else ((a * r).clamp(max=CEILING).exp() - 1) / a


def smooth(x: Numbers, e: float) -> Numbers:
    """-(1 - e) ls(x) - e ls(-x): a share e of the labels is taken to be wrong."""
    return -(1 - e) * logsigmoid(x) - e * logsigmoid(-x) if e else -logsigmoid(x)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0, by the exact one of two forms on each side of -ln 2; finite also at 0."""
    x = x.clamp(max=-torch.finfo(x.dtype).tiny)
    near = x > -math.log(2)
    # Each form sees only arguments that it is finite for: a gradient of inf times 0 is NaN.
    close = torch.log(-torch.expm1(x.masked_fill(~near, -1.0)))
    far = torch.log1p(-torch.exp(x.masked_fill(near, -1.0)))
    return torch.where(near, close, far)


# Against a reference.


def _d(p: Pairs, o: Options) -> Numbers:
    return divergent(p.r_w, o) - divergent(p.r_l, o)


def _mean_d(p: Pairs, o: Options) -> Numbers:
    return divergent(p.r_w, o) / p.n_w - divergent(p.r_l, o) / p.n_l


def dpo(p: Pairs, o: Options) -> Numbers:
    """-ls(beta D)."""
    return -logsigmoid(o.beta * _d(p, o))


def cdpo(p: Pairs, o: Options) -> Numbers:
    """DPO with smoothed labels."""
    return smooth(o.beta * _d(p, o), o.smoothing)


def robust(p: Pairs, o: Options) -> Numbers:
    """[-(1 - e) ls(beta D) + e ls(-beta D)] / (1 - 2e): unbiased where a share e of the labels is flipped."""
    x, e = o.beta * _d(p, o), o.smoothing
    return (-(1 - e) * logsigmoid(x) + e * logsigmoid(-x)) / (1 - 2 * e)


def hinge(p: Pairs, o: Options) -> Numbers:
    """max(0, 1 - beta D)."""
    return torch.relu(1 - o.beta * _d(p, o))


def ipo(p: Pairs, o: Options) -> Numbers:
    """(d - 1 / (2 beta))^2 with d the difference of the scores per token, or with `summed` D itself (the paper's)."""
    return ((_d(p, o) if o.summed else _mean_d(p, o)) - 1 / (2 * o.beta)).square()


def sigmoid_norm(p: Pairs, o: Options) -> Numbers:
    """DPO on scores per token."""
    return -logsigmoid(o.beta * _mean_d(p, o))


def exo_pair(p: Pairs, o: Options) -> Numbers:
    """KL(q || (1 - e, e)) with q = s(beta D) and a gradient through q."""
    x = o.beta * _d(p, o)
    chosen = torch.sigmoid(x) * (logsigmoid(x) - math.log1p(-o.smoothing))
    return chosen + torch.sigmoid(-x) * (logsigmoid(-x) - math.log(o.smoothing))


def nca_pair(p: Pairs, o: Options) -> Numbers:
    """-ls(beta r_w) - ls(-beta r_w) / 2 - ls(-beta r_l) / 2."""
    w, rejected = o.beta * p.r_w, o.beta * p.r_l
    return -logsigmoid(w) - 0.5 * logsigmoid(-w) - 0.5 * logsigmoid(-rejected)


def bco_pair(p: Pairs, o: Options) -> Numbers:
    """-ls(beta r_w) - ls(-beta r_l)."""
    return -logsigmoid(o.beta * p.r_w) - logsigmoid(-o.beta * p.r_l)


def sppo_hard(p: Pairs, o: Options) -> Numbers:
    """(r_w - 1 / (2 beta))^2 + (r_l + 1 / (2 beta))^2."""
    return (p.r_w - 0.5 / o.beta).square() + (p.r_l + 0.5 / o.beta).square()


def apo_zero(p: Pairs, o: Options) -> Numbers:
    """1 - s(beta r_w) + s(beta r_l): chosen up, rejected down."""
    return torch.sigmoid(-o.beta * p.r_w) + torch.sigmoid(o.beta * p.r_l)


def apo_down(p: Pairs, o: Options) -> Numbers:
    """s(beta r_w) + 1 - s(beta (r_w - r_l)): both down, the rejected one more."""
    return torch.sigmoid(o.beta * p.r_w) + torch.sigmoid(-o.beta * (p.r_w - p.r_l))


def discopop(p: Pairs, o: Options) -> Numbers:
    """-ls(x) (1 - m) + exp(-x) m with x = beta D, m = s(x / tau)."""
    x = o.beta * _d(p, o)
    # exp(-x) m in one exponential: by themselves they are inf and 0.
    return -logsigmoid(x) * torch.sigmoid(-x / o.tau) + (logsigmoid(x / o.tau) - x).clamp(max=CEILING).exp()


def rdpo(p: Pairs, o: Options) -> Numbers:
    """DPO on beta D + length (n_w - n_l): a longer chosen reply has won a part of its margin already."""
    return smooth(o.beta * _d(p, o) + o.length * (p.n_w - p.n_l), o.smoothing)


def dpop(p: Pairs, o: Options) -> Numbers:
    """DPO on beta (D - penalty max(0, -r_w)): the chosen reply may not become less likely than under the reference."""
    return smooth(o.beta * (_d(p, o) - o.penalty * torch.relu(-p.r_w)), o.smoothing)


def aot(p: Pairs, o: Options) -> Numbers:
    """Smoothed DPO on sorted(logp_w - logp_l) - sorted(ref_w - ref_l): the distributions of the batch are compared."""
    return smooth(o.beta * ((p.logp_w - p.logp_l).sort().values - (p.ref_w - p.ref_l).sort().values), o.smoothing)


def aot_unpaired(p: Pairs, o: Options) -> Numbers:
    """Smoothed DPO on sorted(r_w) - sorted(r_l): who was paired with whom does not count."""
    return smooth(o.beta * (p.r_w.sort().values - p.r_l.sort().values), o.smoothing)


# Without a reference.


def simpo(p: Pairs, o: Options) -> Numbers:
    """Smoothed -ls(beta (mean_w - mean_l) - gamma), with means of the log-prob per token."""
    return smooth(o.beta * (p.mean_w - p.mean_l) - o.gamma, o.smoothing)


def shaped(mean: Numbers, o: Options) -> Numbers:
    """AlphaPO's reward (1 - p^-a) / a of the mean probability p of a token; its logarithm at a = 0."""
    return -torch.expm1((-o.shape * mean).clamp(max=CEILING)) / o.shape if o.shape else mean


def alphapo(p: Pairs, o: Options) -> Numbers:
    """SimPO on shaped rewards."""
    return smooth(o.beta * (shaped(p.mean_w, o) - shaped(p.mean_l, o)) - o.gamma, o.smoothing)


def cpo(p: Pairs, o: Options) -> Numbers:
    """Smoothed -ls(beta (logp_w - logp_l)), sums over the replies."""
    return smooth(o.beta * (p.logp_w - p.logp_l), o.smoothing)


def slic(p: Pairs, o: Options) -> Numbers:
    """max(0, 1 - beta (logp_w - logp_l))."""
    return torch.relu(1 - o.beta * (p.logp_w - p.logp_l))


def log_odds(p: Pairs) -> Numbers:
    """Logarithm of the ratio of the odds p / (1 - p) of both replies, p being the mean probability of a token."""
    return (p.mean_w - p.mean_l) - (log1mexp(p.mean_w) - log1mexp(p.mean_l))


def orpo(p: Pairs, o: Options) -> Numbers:
    """-beta ls(log_odds)."""
    return -o.beta * logsigmoid(log_odds(p))


# Single replies.


def kto(r: Numbers, chosen: Bool[Tensor, " pair"], z: Float[Tensor, ""], o: Options) -> Numbers:
    """1 - s(beta (r - z)) for a desirable reply, 1 - s(beta (z - r)) for another; z is not differentiated."""
    x = o.beta * (r - z.detach())
    return torch.sigmoid(torch.where(chosen, -x, x))


FORMS: Mapping[str, Callable[[Pairs, Options], Numbers]] = {
    "dpo": dpo,
    "sigmoid": dpo,
    "cdpo": cdpo,
    "robust": robust,
    "hinge": hinge,
    "ipo": ipo,
    "sigmoid_norm": sigmoid_norm,
    "exo_pair": exo_pair,
    "nca_pair": nca_pair,
    "bco_pair": bco_pair,
    "sppo_hard": sppo_hard,
    "aot": aot,
    "aot_unpaired": aot_unpaired,
    "apo_zero": apo_zero,
    "apo_down": apo_down,
    "discopop": discopop,
    "rdpo": rdpo,
    "dpop": dpop,
    "simpo": simpo,
    "alphapo": alphapo,
    "cpo": cpo,
    "slic": slic,
    "orpo": orpo,
}
"""By the name that a loss has in the settings; `sigmoid` is another name of `dpo`."""
