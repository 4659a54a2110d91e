"""Learning from which of two replies is better, or from whether a reply is good: one objective for all such losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from mmpost.errors import TrainError
from mmpost.objectives import kl
from mmpost.objectives.pair_forms import FORMS, Divergence, Numbers, Options, Pairs, kto, shaped
from mmpost.types import Batch, Loss, Objective, Outputs

Metrics = dict[str, tuple[float | Tensor, float | Tensor]]
# fmt: off
Kind = Literal[
    "dpo", "sigmoid", "cdpo", "robust", "hinge", "ipo", "sigmoid_norm", "exo_pair", "nca_pair", "bco_pair",
    "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "rdpo", "dpop", "mpo", "sft",
    "simpo", "alphapo", "cpo", "slic", "orpo", "kto", "apo_zero_unpaired",
]
# fmt: on

MIXES: Mapping[str, Mapping[str, float]] = {"mpo": {"dpo": 0.8, "bco_pair": 0.2, "sft": 1.0}}
UNPAIRED = frozenset({"kto", "apo_zero_unpaired"})
SORTED = frozenset({"aot", "aot_unpaired"})
FREE = frozenset({"simpo", "alphapo", "cpo", "slic", "orpo", "sft"})
"""Losses without a reference policy."""
DIVERGENT = frozenset(
    {"dpo", "sigmoid", "cdpo", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"}
)
"""Losses that may be combined with another divergence than reverse KL."""

BETA: Mapping[str, float] = {"simpo": 2.5, "alphapo": 2.5}
SMOOTHING: Mapping[str, float] = {"cdpo": 0.1, "robust": 0.1, "exo_pair": 1e-3}
NLL: Mapping[str, float] = {"cpo": 1.0, "slic": 1.0, "orpo": 1.0, "sft": 1.0}
GAMMA = 0.55
"""SimPO's margin as a share of beta: 1.375 for 2.5."""

_ONLY: Mapping[str, frozenset[str]] = {
    "smoothing": frozenset(
        {"cdpo", "robust", "exo_pair", "rdpo", "dpop", "simpo", "alphapo", "cpo", "aot", "aot_unpaired"}
    ),
    "gamma": frozenset({"simpo", "alphapo"}),
    "shape": frozenset({"alphapo"}),
    "tau": frozenset({"discopop"}),
    "length": frozenset({"rdpo"}),
    "penalty": frozenset({"dpop"}),
    "summed": frozenset({"ipo"}),
    "desirable": UNPAIRED,
    "undesirable": UNPAIRED,
    "ld_alpha": frozenset(FORMS),
    "weighting": frozenset(FORMS),
    "margin": frozenset({*FORMS, "sft"}),
}
"""Settings that are about some losses alone."""


@dataclass(frozen=True)
class _Replies:
    """One micro-batch: sums over the trained tokens of each reply, 0 for replies that nobody may have computed."""

    batch: Batch
    mask: Float[Tensor, " tok"]
    logp: Float[Tensor, " tok"]
    ref: Float[Tensor, " tok"]
    n: Float[Tensor, " reply"]

    def sum(self, x: Float[Tensor, " tok"]) -> Float[Tensor, " reply"]:
        return self.batch.sum(x * self.mask)


class Preference(Objective):
    """Preference losses over pairs (DPO and its relatives) or over single replies that are good or bad (KTO).

    Pairs are all (i, j) of a sample's replies with column chosen_i > chosen_j + `margin`: of one chosen (1) and one
    rejected reply (0) there is one pair; a reply without trained tokens is in none. Terms: "preference", a mean over
    pairs (or single replies), and "nll", a mean over the tokens of each sample's best replies.
    """

    loss_type: Kind = "dpo"
    """The loss; docs/preference.md has the formulas, and the convention where versions of one differ."""
    mix: dict[str, float] = {}
    """Several losses and their weights instead of one, such as {dpo: 0.8, bco_pair: 0.2, sft: 1} (kind=mpo)."""
    beta: float | None = Field(default=None, gt=0)
    """Strength of the tie to the reference, or scale of the margin; by default 0.1, for simpo and alphapo 2.5."""
    smoothing: float | None = Field(default=None, ge=0, lt=0.5)
    """Share of labels taken to be wrong; by default 0.1 for cdpo and robust, 0.001 for exo_pair, else 0."""
    gamma: float | None = None
    """simpo, alphapo: margin asked of beta times the difference (gamma_beta_ratio x beta); by default 0.55 beta."""
    shape: float = 0.25
    """alphapo: its alpha; 0 is simpo."""
    tau: float = Field(default=0.05, gt=0)
    """discopop: temperature of its gate."""
    length: float = 0.05
    """rdpo: its alpha, added to the margin for each token that the chosen reply is longer."""
    penalty: float = Field(default=50.0, ge=0)
    """dpop: its lambda, against chosen replies that become less likely than under the reference."""
    summed: bool = False
    """ipo: log-ratios of whole replies, as the paper writes it, instead of means per token."""
    divergence: Divergence = "reverse_kl"
    """Divergence from the reference that the loss is derived from."""
    order: float = 0.5
    """divergence=alpha: its alpha; 1 is reverse_kl."""
    nll_weight: float | None = Field(default=None, ge=0)
    """Weight of the likelihood of the best replies (of single replies: of the good ones); by default 1 for cpo, slic,
    orpo and sft, else 0."""
    ld_alpha: float | None = Field(default=None, ge=0, le=1)
    """Weight of the tokens of the longer reply beyond the length of the shorter one (LD-DPO); by default all count."""
    weighting: bool = False
    """Weight pairs by how likely the policy is to write them (WPO); the likelihood term is not weighted."""
    desirable: float = Field(default=1.0, ge=0)
    """kto: weight of good replies; this times their number should be 1 to 4/3 of the same for bad ones."""
    undesirable: float = Field(default=1.0, ge=0)
    """kto: weight of bad replies."""
    margin: float = Field(default=1e-8, ge=0)
    """Replies whose column `chosen` differs by no more are no pair: matters where it holds scores."""

    @model_validator(mode="after")
    def _possible(self) -> Preference:
        kinds = self.losses.keys()
        unknown = sorted(kinds - set(get_args(Kind)) | kinds & MIXES.keys())
        if unknown or not kinds:
            raise ValueError(f"mix wants losses of {', '.join(FORMS)} and sft, found {unknown or 'none'}")
        if self.mix and self.loss_type != "dpo":
            raise ValueError(f"mix names the losses, and kind={self.loss_type} another; drop one of them")
        if kinds & UNPAIRED and len(kinds) > 1:
            raise ValueError(f"{', '.join(UNPAIRED)} learn from single replies and cannot be mixed, found {self.mix}")
        for name, users in _ONLY.items():
            if getattr(self, name) != type(self).model_fields[name].default and not users & kinds:
                raise ValueError(f"{name} is about {', '.join(sorted(users))}, found kind={', '.join(kinds)}; drop it")
        if self.divergence != "reverse_kl" and not kinds <= DIVERGENT:
            raise ValueError(f"divergence goes with {', '.join(sorted(DIVERGENT))} alone, found {', '.join(kinds)}")
        if self.order != 0.5 and self.divergence != "alpha":
            raise ValueError(f"order is about divergence=alpha, found {self.divergence}; drop it")
        if self.nll_weight is not None and "sft" in self.mix:
            raise ValueError("nll does not go with a mix that has sft; drop one of them")
        if "exo_pair" in kinds and self.options_of("exo_pair").smoothing <= 0:
            raise ValueError("exo_pair wants smoothing above 0: it is the rejected reply's share of the target")
        return self

    # What it is made of.

    @property
    def losses(self) -> Mapping[str, float]:
        """The losses and their weights."""
        return self.mix or MIXES.get(self.loss_type) or {self.loss_type: 1.0}

    @property
    def options(self) -> Options:
        """The numbers of the first loss, which the metrics are about."""
        return self.options_of(next(iter(self.losses)))

    def options_of(self, name: str) -> Options:
        """The numbers of a loss's formula, with its own defaults for what is not given."""
        beta = BETA.get(name, 0.1) if self.beta is None else self.beta
        return Options(
            beta=beta,
            smoothing=SMOOTHING.get(name, 0.0) if self.smoothing is None else self.smoothing,
            gamma=GAMMA * beta if self.gamma is None else self.gamma,
            shape=self.shape,
            tau=self.tau,
            length=self.length,
            penalty=self.penalty,
            summed=self.summed,
            divergence=self.divergence,
            order=self.order,
        )

    @property
    def paired(self) -> bool:
        """Whether it learns from pairs."""
        return not self.losses.keys() & UNPAIRED

    @property
    def reference(self) -> bool:
        """Whether it compares with a reference policy (column ref_logp)."""
        return not self.losses.keys() <= FREE

    @property
    def mismatched(self) -> bool:
        """Whether it wants replies to other prompts as well (column mismatched)."""
        return "kto" in self.losses

    @property
    def _forms(self) -> dict[str, float]:
        return {name: weight for name, weight in self.losses.items() if name != "sft"}

    @property
    def _nll(self) -> float:
        if self.nll_weight is not None:
            return self.nll_weight
        return sum(weight * NLL.get(name, 0.0) for name, weight in self.losses.items())

    # What the trainer asks.

    @property
    def unit(self) -> Literal["reply", "group", "batch"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        if self.mismatched or self.losses.keys() & SORTED:
            return "batch"
        return "group" if self.paired else "reply"

    @property
    def required_outputs(self) -> frozenset[str]:
        return frozenset({"logp", "sum_p2"} if self.weighting else {"logp"})

    @property
    def required_columns(self) -> frozenset[str]:
        reads = {"ref_logp": self.reference, "mismatched": self.mismatched}
        return frozenset({"mask", "chosen"} | {name for name, read in reads.items() if read})

    def counts(self, batch: Batch) -> Mapping[str, float]:
        if not self.paired:
            found = {"preference": float(self._judged(batch).sum()), "nll": float(self._good(batch).sum())}
            return {name: found[name] for name in self._terms}
        win, lose = self._pairs(batch)
        best = _best(batch, win, lose)[batch.reply_of]
        found = {"preference": float(len(win)), "nll": float((batch.tok("mask") * best).sum())}
        return {name: found[name] for name in self._terms}

    def zero_gradient_mask(self, batch: Batch) -> Bool[Tensor, " reply"]:
        if not self.paired:
            return batch.sum(batch.tok("mask")) == 0
        return ~_marked(batch, *self._pairs(batch))

    def __call__(self, outputs: Outputs, batch: Batch) -> Loss:
        return self._of_pairs(outputs, batch) if self.paired else self._of_replies(outputs, batch)

    # Pairs.

    @property
    def _terms(self) -> list[str]:
        return [name for name, there in (("preference", self._forms), ("nll", self._nll)) if there]

    def _pairs(self, batch: Batch) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
        """The indices of the chosen and of the rejected reply of each pair."""
        chosen, group = batch.reply("chosen"), batch.group_of
        there = batch.sum(batch.tok("mask")) > 0
        better = (chosen[:, None] - chosen > self.margin) & (group[:, None] == group)
        win, lose = (better & there[:, None] & there).nonzero(as_tuple=True)
        return win, lose

    def _of_pairs(self, outputs: Outputs, batch: Batch) -> Loss:
        win, lose = self._pairs(batch)
        x = self._replies(outputs, batch, _marked(batch, win, lose))
        pairs = self._sums(x, win, lose)
        terms: dict[str, Tensor] = {}
        metrics = self._metrics(x, pairs)
        if self._forms:
            each = [weight * FORMS[name](pairs, self.options_of(name)) for name, weight in self._forms.items()]
            loss = torch.stack(each).sum(0)
            if self.weighting:
                weight = self._likely(x, outputs)
                loss = loss * weight[win] * weight[lose]
                metrics["preference/weight"] = ((weight[win] * weight[lose]).sum(), float(len(win)))
            terms["preference"] = loss.sum()
        if self._nll:
            best = x.mask * _best(batch, win, lose)[batch.reply_of]
            nll = -(x.logp * best).sum()
            terms["nll"] = self._nll * nll
            metrics["nll/token"] = (nll.detach(), best.sum())
        return Loss(terms=terms, metrics=metrics)

    def _replies(self, outputs: Outputs, batch: Batch, used: Bool[Tensor, " reply"]) -> _Replies:
        assert outputs.logp is not None
        mask = batch.tok("mask").to(outputs.logp)
        hidden = (mask == 0) | ~used[batch.reply_of]
        logp = outputs.logp.masked_fill(hidden, 0.0)
        ref = batch.tok("ref_logp").to(logp).masked_fill(hidden, 0.0) if self.reference else torch.zeros_like(logp)
        return _Replies(batch, mask.masked_fill(hidden, 0.0), logp, ref, batch.sum(mask.masked_fill(hidden, 0.0)))

    def _sums(self, x: _Replies, win: Int[Tensor, " pair"], lose: Int[Tensor, " pair"]) -> Pairs:
        n_w, n_l = x.n[win], x.n[lose]
        if self.ld_alpha is None:
            logp, ref = x.sum(x.logp), x.sum(x.ref)
            return Pairs(logp[win], logp[lose], ref[win], ref[lose], n_w, n_l)
        shorter, found = torch.minimum(n_w, n_l), []
        for side in (win, lose):
            tok, pair = _tokens(x.batch, side)
            place = x.mask.cumsum(0) - x.mask  # trained tokens before this one, in all replies
            tail = place[tok] - place[_starts(x.batch)[side]][pair] >= shorter[pair]
            weight = x.mask[tok] * torch.where(tail, self.ld_alpha, 1.0).to(x.mask)
            found.append([torch.zeros_like(n_w).index_add(0, pair, (v[tok] * weight)) for v in (x.logp, x.ref)])
        (logp_w, ref_w), (logp_l, ref_l) = found
        return Pairs(logp_w, logp_l, ref_w, ref_l, n_w, n_l)

    def _likely(self, x: _Replies, outputs: Outputs) -> Float[Tensor, " reply"]:
        """WPO's weight: exp of the mean over tokens of logp - log sum_v p_v^2."""
        assert outputs.sum_p2 is not None
        relative = x.logp.detach() - outputs.sum_p2.detach().masked_fill(x.mask == 0, 1.0).log()
        return (x.sum(relative) / x.n.clamp(min=1.0)).exp()

    def _metrics(self, x: _Replies, pairs: Pairs) -> Metrics:
        w, rejected = (v.detach() for v in self._rewards(pairs))
        means = {
            "rewards/chosen": w,
            "rewards/rejected": rejected,
            "rewards/margin": w - rejected,
            "rewards/accuracy": (w > rejected).to(w),
            "logp/chosen": pairs.logp_w,
            "logp/rejected": pairs.logp_l,
            "length/chosen": pairs.n_w,
            "length/rejected": pairs.n_l,
        }
        metrics: Metrics = {name: (v.detach().sum(), float(len(v))) for name, v in means.items()}
        return metrics | self._drift(x)

    def _drift(self, x: _Replies) -> Metrics:
        """How far the policy is from the reference on these replies: their KL only where the policy wrote them."""
        if not self.reference:
            return {}
        return {"kl": ((kl.estimate(x.logp.detach(), x.ref, "k3") * x.mask).sum(), x.mask.sum())}

    def _rewards(self, pairs: Pairs) -> tuple[Numbers, Numbers]:
        """The implicit rewards: beta times the log-ratio, or what a loss without reference compares."""
        beta, first = self.options.beta, next(iter(self.losses))
        if self.reference:
            return beta * pairs.r_w, beta * pairs.r_l
        if first in ("simpo", "orpo"):
            return beta * pairs.mean_w, beta * pairs.mean_l
        if first == "alphapo":
            return beta * shaped(pairs.mean_w, self.options), beta * shaped(pairs.mean_l, self.options)
        return beta * pairs.logp_w, beta * pairs.logp_l

    # Single replies.

    def _judged(self, batch: Batch) -> Bool[Tensor, " reply"]:
        """The replies that the loss is a mean over."""
        there = batch.sum(batch.tok("mask")) > 0
        return there & (batch.reply("mismatched") == 0) if self.mismatched else there

    def _good(self, batch: Batch) -> Float[Tensor, " tok"]:
        """The trained tokens of good replies."""
        return batch.tok("mask") * (self._judged(batch) & (batch.reply("chosen") > 0.5))[batch.reply_of]

    def _of_replies(self, outputs: Outputs, batch: Batch) -> Loss:
        there = batch.sum(batch.tok("mask")) > 0
        judged, good = self._judged(batch), batch.reply("chosen") > 0.5
        x = self._replies(outputs, batch, there)
        r = x.sum(x.logp - x.ref)
        metrics: Metrics = {}
        z = r.new_zeros(())
        if self.mismatched:
            others = there & ~judged
            if bool(judged.any()) and not bool(others.any()):
                raise TrainError(
                    "kto compares with replies to other prompts, and this step has none (column mismatched is 0 for "
                    "all): put the transform Mismatched before, and draw at least two samples on each rank"
                )
            apart = (r.detach() * others).sum()
            z = (apart / others.sum().clamp(min=1)).clamp(min=0)
            metrics["kl/mismatched"] = (apart, others.sum())
        weight = torch.where(good, self.desirable, self.undesirable).to(r) * judged
        terms = {"preference": (kto(r, good, z, self.options) * weight).sum()}
        if self._nll:
            best = self._good(batch).to(x.logp)
            nll = -(x.logp * best).sum()
            terms["nll"] = self._nll * nll
            metrics["nll/token"] = (nll.detach(), best.sum())
        logp = x.sum(x.logp)
        for name, mask in (("chosen", judged & good), ("rejected", judged & ~good)):
            means = {f"rewards/{name}": self.options.beta * r, f"logp/{name}": logp, f"length/{name}": x.n}
            metrics |= {key: ((v.detach() * mask).sum(), mask.sum()) for key, v in means.items()}
        return Loss(terms=terms, metrics=metrics)


def _marked(batch: Batch, *indices: Int[Tensor, " _"]) -> Bool[Tensor, " reply"]:
    """The replies with these indices."""
    found = torch.zeros(batch.replies, dtype=torch.bool, device=batch.group_of.device)
    found[torch.cat(indices)] = True
    return found


def _best(batch: Batch, win: Int[Tensor, " pair"], lose: Int[Tensor, " pair"]) -> Bool[Tensor, " reply"]:
    """The replies that are better than another and worse than none."""
    return _marked(batch, win) & ~_marked(batch, lose)


def _starts(batch: Batch) -> Int[Tensor, " reply"]:
    """Where the tokens of each reply begin."""
    sizes = batch.reply_of.bincount(minlength=batch.replies)
    return sizes.cumsum(0) - sizes


def _tokens(batch: Batch, replies: Int[Tensor, " pair"]) -> tuple[Int[Tensor, " one"], Int[Tensor, " one"]]:
    """The tokens of these replies, one reply after the other (one may come twice), and the place of each's reply."""
    sizes = batch.reply_of.bincount(minlength=batch.replies)[replies]
    pair = torch.repeat_interleave(torch.arange(len(replies), device=sizes.device), sizes)
    inside = torch.arange(len(pair), device=sizes.device) - (sizes.cumsum(0) - sizes)[pair]
    return _starts(batch)[replies][pair] + inside, pair
