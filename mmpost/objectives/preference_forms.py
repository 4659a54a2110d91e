"""The preference losses: a formula and a row of `FORMS` for each.

To add a loss, write its function here and its row below: `Preference` takes its name as `loss_type` and in `mix`, and
everything else that it must know of the loss is in the row. A formula sees the numbers of each pair (`Pairs`) or of
each labeled reply (`LabeledReplies`); masking, counting and reducing are `Preference`'s work.

Notation: D = g(r_w) - g(r_l) is `margin`, s the sigmoid, ls its logarithm, e the label smoothing; the rest is that of
`mmpost.objectives.pairs`. Where published versions of a loss disagree, docs/preference.md says which one this is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch.nn.functional import logsigmoid

from mmpost.objectives.pairs import (
    MAX_EXPONENT,
    LabeledReplies,
    Numbers,
    Options,
    Pairs,
    alpha_reward,
    log_odds_ratio,
    margin,
    mean_margin,
    smoothed_logistic,
)

# With a reference policy.


def dpo(p: Pairs, o: Options) -> Numbers:
    """-ls(beta D)."""
    return -logsigmoid(o.beta * margin(p, o))


def cdpo(p: Pairs, o: Options) -> Numbers:
    """-(1 - e) ls(beta D) - e ls(-beta D): DPO with smoothed labels."""
    return smoothed_logistic(o.beta * margin(p, o), o.smoothing)


def robust(p: Pairs, o: Options) -> Numbers:
    """[-(1 - e) ls(beta D) + e ls(-beta D)] / (1 - 2e): unbiased when a fraction e of the labels is flipped."""
    x, e = o.beta * margin(p, o), o.smoothing
    return (-(1 - e) * logsigmoid(x) + e * logsigmoid(-x)) / (1 - 2 * e)


def hinge(p: Pairs, o: Options) -> Numbers:
    """max(0, 1 - beta D)."""
    return torch.relu(1 - o.beta * margin(p, o))


def ipo(p: Pairs, o: Options) -> Numbers:
    """(d - 1 / (2 beta))^2, with d the margin per token, or D itself with `summed` (as printed in the paper)."""
    return ((margin(p, o) if o.summed else mean_margin(p, o)) - 1 / (2 * o.beta)).square()


def sigmoid_norm(p: Pairs, o: Options) -> Numbers:
    """-ls(beta (g(r_w) / n_w - g(r_l) / n_l)): length-normalized DPO."""
    return -logsigmoid(o.beta * mean_margin(p, o))


def exo_pair(p: Pairs, o: Options) -> Numbers:
    """KL(q || (1 - e, e)) with q = s(beta D); the gradient also flows through q."""
    x = o.beta * margin(p, o)
    chosen = torch.sigmoid(x) * (logsigmoid(x) - math.log1p(-o.smoothing))
    return chosen + torch.sigmoid(-x) * (logsigmoid(-x) - math.log(o.smoothing))


def nca_pair(p: Pairs, o: Options) -> Numbers:
    """-ls(beta r_w) - ls(-beta r_w) / 2 - ls(-beta r_l) / 2."""
    chosen, rejected = o.beta * p.r_w, o.beta * p.r_l
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def bco_pair(p: Pairs, o: Options) -> Numbers:
    """-ls(beta r_w) - ls(-beta r_l)."""
    return -logsigmoid(o.beta * p.r_w) - logsigmoid(-o.beta * p.r_l)


def sppo_hard(p: Pairs, o: Options) -> Numbers:
    """(r_w - 1 / (2 beta))^2 + (r_l + 1 / (2 beta))^2."""
    return (p.r_w - 0.5 / o.beta).square() + (p.r_l + 0.5 / o.beta).square()


def apo_zero(p: Pairs, o: Options) -> Numbers:
    """1 - s(beta r_w) + s(beta r_l): the chosen reply becomes likelier, the rejected one less likely."""
    return torch.sigmoid(-o.beta * p.r_w) + torch.sigmoid(o.beta * p.r_l)


def apo_down(p: Pairs, o: Options) -> Numbers:
    """s(beta r_w) + 1 - s(beta (r_w - r_l)): both become less likely, the rejected reply more so."""
    return torch.sigmoid(o.beta * p.r_w) + torch.sigmoid(-o.beta * (p.r_w - p.r_l))


def discopop(p: Pairs, o: Options) -> Numbers:
    """-ls(x) (1 - m) + exp(-x) m, with x = beta D and the gate m = s(x / tau)."""
    x = o.beta * margin(p, o)
    # exp(-x) m as one exponential: for very negative x the factors are inf and 0.
    return -logsigmoid(x) * torch.sigmoid(-x / o.tau) + (logsigmoid(x / o.tau) - x).clamp(max=MAX_EXPONENT).exp()


def rdpo(p: Pairs, o: Options) -> Numbers:
    """Smoothed logistic loss of beta D + length (n_w - n_l): a longer chosen reply needs less of a margin."""
    return smoothed_logistic(o.beta * margin(p, o) + o.length * (p.n_w - p.n_l), o.smoothing)


def dpop(p: Pairs, o: Options) -> Numbers:
    """Smoothed logistic loss of beta (D - penalty max(0, -r_w)): penalizes a chosen reply less likely than before."""
    return smoothed_logistic(o.beta * (margin(p, o) - o.penalty * torch.relu(-p.r_w)), o.smoothing)


def aot(p: Pairs, o: Options) -> Numbers:
    """Smoothed logistic loss of beta (sort(logp_w - logp_l) - sort(ref_w - ref_l)), sorted over the whole step."""
    policy, reference = (p.logp_w - p.logp_l).sort().values, (p.ref_w - p.ref_l).sort().values
    return smoothed_logistic(o.beta * (policy - reference), o.smoothing)


def aot_unpaired(p: Pairs, o: Options) -> Numbers:
    """Smoothed logistic loss of beta (sort(r_w) - sort(r_l)): which replies formed a pair does not matter."""
    return smoothed_logistic(o.beta * (p.r_w.sort().values - p.r_l.sort().values), o.smoothing)


# Reference-free.


def simpo(p: Pairs, o: Options) -> Numbers:
    """Smoothed logistic loss of beta (logp_w / n_w - logp_l / n_l) - gamma."""
    return smoothed_logistic(o.beta * (p.mean_w - p.mean_l) - o.gamma, o.smoothing)


def alphapo(p: Pairs, o: Options) -> Numbers:
    """SimPO on `alpha_reward` instead of log-probs per token."""
    return smoothed_logistic(o.beta * (alpha_reward(p.mean_w, o) - alpha_reward(p.mean_l, o)) - o.gamma, o.smoothing)


def cpo(p: Pairs, o: Options) -> Numbers:
    """Smoothed logistic loss of beta (logp_w - logp_l)."""
    return smoothed_logistic(o.beta * (p.logp_w - p.logp_l), o.smoothing)


def slic(p: Pairs, o: Options) -> Numbers:
    """max(0, 1 - beta (logp_w - logp_l))."""
    return torch.relu(1 - o.beta * (p.logp_w - p.logp_l))


def orpo(p: Pairs, o: Options) -> Numbers:
    """-beta ls(log odds ratio)."""
    return -o.beta * logsigmoid(log_odds_ratio(p))


# Single labeled replies.


def kto(x: LabeledReplies, o: Options) -> Numbers:
    """1 - s(beta (r - z)) for a good reply, 1 - s(beta (z - r)) for a bad one; no gradient through z."""
    v = o.beta * (x.r - x.z.detach())
    return torch.sigmoid(torch.where(x.good, -v, v))


# Implicit rewards of reference-free losses, for the metrics.


def sum_reward(logp: Numbers, n: Numbers, o: Options) -> Numbers:
    """beta logp."""
    return o.beta * logp


def mean_reward(logp: Numbers, n: Numbers, o: Options) -> Numbers:
    """beta logp / n."""
    return o.beta * (logp / n)


def mean_alpha_reward(logp: Numbers, n: Numbers, o: Options) -> Numbers:
    """beta times `alpha_reward` of the log-prob per token."""
    return o.beta * alpha_reward(logp / n, o)


@dataclass(frozen=True)
class PreferenceForm:
    """One loss: its formula, what it needs, and its defaults."""

    function: Callable[[Pairs, Options], Numbers] | None = None
    """The formula; None for losses of single replies, for pure likelihood and for mixes."""
    unpaired_function: Callable[[LabeledReplies, Options], Numbers] | None = None
    """The formula of a loss of single labeled replies."""
    mix: Mapping[str, float] = field(default_factory=dict)
    """A weighted sum of other losses, by name."""
    paper: str = ""
    reference_free: bool = False
    sorts_the_step: bool = False
    """Compares pairs with each other, so it needs the whole optimizer step in one call."""
    mismatched: bool = False
    """Needs replies to other prompts (column `mismatched`), as KTO does for z."""
    supports_divergence: bool = False
    """May be combined with a divergence other than reverse KL."""
    needs_smoothing: bool = False
    """Undefined at smoothing 0."""
    options: frozenset[str] = frozenset()
    """Fields of `Preference` that the formula reads and not every loss does."""
    beta: float = 0.1
    """Defaults, for what the user leaves out."""
    smoothing: float = 0.0
    gamma_beta_ratio: float = 0.0
    nll_weight: float = 0.0
    reward: Callable[[Numbers, Numbers, Options], Numbers] = sum_reward
    """Implicit reward of a reference-free loss from log-prob and length; with a reference it is beta r."""

    @property
    def paired(self) -> bool:
        """Whether it learns from pairs, not from single labeled replies."""
        return self.unpaired_function is None

    @property
    def reads(self) -> frozenset[str]:
        """All fields of `Preference` that have an effect on this loss and not on every loss."""
        if not self.paired:
            return self.options | {"desirable", "undesirable"}
        return self.options | {"margin"} | ({"ld_alpha", "weighting"} if self.function else frozenset())


_SMOOTHING = frozenset({"smoothing"})
_DPO = PreferenceForm(dpo, paper="Rafailov et al. 2023, arXiv 2305.18290", supports_divergence=True)

# fmt: off
FORMS: dict[str, PreferenceForm] = {
    "dpo": _DPO,
    "sigmoid": _DPO,
    "cdpo": PreferenceForm(cdpo, paper="Mitchell 2023, ericmitchell.ai/cdpo.pdf", supports_divergence=True,
                           options=_SMOOTHING, smoothing=0.1),
    "robust": PreferenceForm(robust, paper="Chowdhury et al. 2024, arXiv 2403.00409", supports_divergence=True,
                             options=_SMOOTHING, smoothing=0.1),
    "hinge": PreferenceForm(hinge, paper="Liu et al. 2023 (RSO), arXiv 2309.06657", supports_divergence=True),
    "ipo": PreferenceForm(ipo, paper="Azar et al. 2023, arXiv 2310.12036", supports_divergence=True,
                          options=frozenset({"summed"})),
    "sigmoid_norm": PreferenceForm(sigmoid_norm, paper="Lambert et al. 2024 (Tulu 3), arXiv 2411.15124",
                                   supports_divergence=True),
    "exo_pair": PreferenceForm(exo_pair, paper="Ji et al. 2024, arXiv 2402.00856, eq. 16", supports_divergence=True,
                               options=_SMOOTHING, smoothing=1e-3, needs_smoothing=True),
    "nca_pair": PreferenceForm(nca_pair, paper="Chen et al. 2024, arXiv 2402.05369"),
    "bco_pair": PreferenceForm(bco_pair, paper="Jung et al. 2024, arXiv 2404.04656"),
    "sppo_hard": PreferenceForm(sppo_hard, paper="Wu et al. 2024, arXiv 2405.00675"),
    "aot": PreferenceForm(aot, paper="Melnyk et al. 2024, arXiv 2406.05882", sorts_the_step=True, options=_SMOOTHING),
    "aot_unpaired": PreferenceForm(aot_unpaired, paper="Melnyk et al. 2024, arXiv 2406.05882", sorts_the_step=True,
                                   options=_SMOOTHING),
    "apo_zero": PreferenceForm(apo_zero, paper="D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 7"),
    "apo_down": PreferenceForm(apo_down, paper="D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 8"),
    "discopop": PreferenceForm(discopop, paper="Lu et al. 2024, arXiv 2406.08414, eq. 5", supports_divergence=True,
                               options=frozenset({"tau"})),
    "rdpo": PreferenceForm(rdpo, paper="Park et al. 2024, arXiv 2403.19159",
                           options=frozenset({"smoothing", "length"})),
    "dpop": PreferenceForm(dpop, paper="Pal et al. 2024 (Smaug), arXiv 2402.13228",
                           options=frozenset({"smoothing", "penalty"})),
    "simpo": PreferenceForm(simpo, paper="Meng et al. 2024, arXiv 2405.14734", reference_free=True,
                            options=frozenset({"smoothing", "gamma"}), beta=2.5, gamma_beta_ratio=0.55,
                            reward=mean_reward),
    "alphapo": PreferenceForm(alphapo, paper="Gupta et al. 2025, arXiv 2501.03884", reference_free=True,
                              options=frozenset({"smoothing", "gamma", "shape"}), beta=2.5, gamma_beta_ratio=0.55,
                              reward=mean_alpha_reward),
    "cpo": PreferenceForm(cpo, paper="Xu et al. 2024, arXiv 2401.08417", reference_free=True, options=_SMOOTHING,
                          nll_weight=1.0),
    "slic": PreferenceForm(slic, paper="Zhao et al. 2023, arXiv 2305.10425", reference_free=True, nll_weight=1.0),
    "orpo": PreferenceForm(orpo, paper="Hong et al. 2024, arXiv 2403.07691", reference_free=True, nll_weight=1.0,
                           reward=mean_reward),
    "kto": PreferenceForm(unpaired_function=kto, paper="Ethayarajh et al. 2024, arXiv 2402.01306", mismatched=True),
    "apo_zero_unpaired": PreferenceForm(unpaired_function=kto, paper="D'Oosterlinck et al. 2024, arXiv 2408.06266"),
    "sft": PreferenceForm(paper="likelihood of the chosen reply", reference_free=True, supports_divergence=True,
                          nll_weight=1.0),
    "mpo": PreferenceForm(mix={"dpo": 0.8, "bco_pair": 0.2, "sft": 1.0}, paper="Wang et al. 2024, arXiv 2411.10442"),
}
"""Losses by the name they have in the settings; `sigmoid` is TRL's name of `dpo`."""
# fmt: on
