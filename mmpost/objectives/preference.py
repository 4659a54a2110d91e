"""Preference optimization: learning which of two replies is better, or whether a single reply is good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from mmpost.errors import TrainError
from mmpost.objectives import kl
from mmpost.objectives._names import require_known
from mmpost.objectives.pairs import Divergence, LabeledReplies, Numbers, Options, Pairs
from mmpost.objectives.preference_forms import FORMS, PreferenceForm
from mmpost.types import Batch, Loss, Objective, Outputs

Metrics = dict[str, tuple[float | Tensor, float | Tensor]]


@dataclass(frozen=True)
class _Replies:
    """One micro-batch. Masked tokens, and replies that the loss does not use, hold zeros: they may not be computed."""

    batch: Batch
    mask: Float[Tensor, " tok"]
    logp: Float[Tensor, " tok"]
    ref: Float[Tensor, " tok"]
    n: Float[Tensor, " reply"]
    """Trained tokens."""

    def sum(self, x: Float[Tensor, " tok"]) -> Float[Tensor, " reply"]:
        return self.batch.sum(x * self.mask)


class Preference(Objective):
    """Preference losses over pairs (DPO, IPO, SimPO, ORPO, ...) or over single labeled replies (KTO).

    The pairs of a sample are all (i, j) of its replies with chosen_i > chosen_j + `margin`: one chosen reply (1) and
    one rejected (0) make one pair. Replies without trained tokens are in no pair. Terms: "preference", a mean over
    pairs (or labeled replies), and "nll", a mean over the trained tokens of each sample's best replies. A loss is a
    row of `mmpost.objectives.preference_forms.FORMS`, where its formula and paper are.
    """

    loss_type: str = "dpo"
    """The loss: dpo, ipo, simpo, orpo, kto, ... (docs/preference.md has all, with their formulas)."""
    mix: dict[str, float] = {}
    """Weighted sum of several losses instead of one, such as {dpo: 0.8, bco_pair: 0.2, sft: 1} (loss_type=mpo)."""
    beta: float | None = Field(default=None, gt=0)
    """Strength of the tie to the reference, or scale of the margin; by default 0.1, for simpo and alphapo 2.5."""
    smoothing: float | None = Field(default=None, ge=0, lt=0.5)
    """Label smoothing: assumed fraction of flipped labels; by default 0.1 for cdpo and robust, 0.001 for exo_pair."""
    gamma: float | None = None
    """simpo, alphapo: target margin, subtracted after beta (gamma_beta_ratio x beta); by default 0.55 beta."""
    shape: float = 0.25
    """alphapo: its alpha; at 0 the loss is simpo."""
    tau: float = Field(default=0.05, gt=0)
    """discopop: temperature of its gate."""
    length: float = 0.05
    """rdpo: its alpha, added to the margin for each token by which the chosen reply is longer."""
    penalty: float = Field(default=50.0, ge=0)
    """dpop: its lambda, the penalty on chosen replies that are less likely than under the reference."""
    summed: bool = False
    """ipo: log-ratios summed over the reply, as printed in the paper, instead of averaged per token."""
    divergence: Divergence = "reverse_kl"
    """f-divergence from the reference that the loss is derived from (f-DPO)."""
    order: float = 0.5
    """divergence=alpha: its alpha; 1 is reverse_kl."""
    nll_weight: float | None = Field(default=None, ge=0)
    """Weight of the likelihood of the best replies (of the good ones if unpaired), as in RPO; by default 1 for cpo,
    slic, orpo and sft, else 0."""
    ld_alpha: float | None = Field(default=None, ge=0, le=1)
    """LD-DPO: weight of the longer reply's tokens beyond the shorter one's length; by default they count fully."""
    weighting: bool = False
    """WPO: weight pairs by how likely the policy is to generate them; the likelihood term is not weighted."""
    desirable: float = Field(default=1.0, ge=0)
    """kto: weight of good replies; desirable x good should be 1 to 4/3 of undesirable x bad (their numbers)."""
    undesirable: float = Field(default=1.0, ge=0)
    """kto: weight of bad replies."""
    margin: float = Field(default=1e-8, ge=0)
    """Replies whose column `chosen` differs by no more than this form no pair; matters where it holds scores."""

    @field_validator("loss_type")
    @classmethod
    def _known(cls, value: str) -> str:
        require_known(value, FORMS, "loss_type")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Preference:
        for name in self.mix:
            require_known(name, [known for known, form in FORMS.items() if not form.mix], "a loss in mix")
        if self.mix and self.loss_type != "dpo":
            raise ValueError(f"mix names the losses, and loss_type={self.loss_type} another one; drop one of them")
        forms, names = self._forms, ", ".join(self.losses)
        if not self.paired and len(forms) > 1:
            raise ValueError(f"losses of single labeled replies (kto) cannot be mixed, found {self.mix}")
        self._check_options(names)
        if self.divergence != "reverse_kl" and not all(form.supports_divergence for form in forms.values()):
            users = ", ".join(sorted(name for name, form in FORMS.items() if form.supports_divergence))
            raise ValueError(f"only {users} support a divergence other than reverse_kl, found {names}; drop it")
        if self.order != 0.5 and self.divergence != "alpha":
            raise ValueError(f"order only applies to divergence=alpha, found divergence={self.divergence}; drop it")
        if self.nll_weight is not None and any(not f.function and f.paired for f in forms.values()) and self.mix:
            raise ValueError("nll_weight conflicts with a mix that has sft; drop one of them")
        for name, form in forms.items():
            if form.needs_smoothing and self.options_of(name).smoothing <= 0:
                raise ValueError(f"{name} needs smoothing above 0: it is the rejected reply's part of the target")
        return self

    def _check_options(self, names: str) -> None:
        """Reject options that none of the losses reads."""
        read = frozenset[str]().union(*(form.reads for form in self._forms.values()))
        for option in frozenset[str]().union(*(form.reads for form in FORMS.values())) - read:
            if getattr(self, option) != type(self).model_fields[option].default:
                users = ", ".join(sorted(name for name, form in FORMS.items() if option in form.reads))
                raise ValueError(f"{option} has no effect on {names}, only on {users}; drop it")

    # What it is composed of.

    @property
    def losses(self) -> Mapping[str, float]:
        """Names and weights of the losses that are added up."""
        return self.mix or FORMS[self.loss_type].mix or {self.loss_type: 1.0}

    @property
    def options(self) -> Options:
        """The hyper-parameters of the first loss, which the metrics refer to."""
        return self.options_of(next(iter(self.losses)))

    def options_of(self, name: str) -> Options:
        """The hyper-parameters of the loss `name`, with its defaults for those that are not set."""
        form = FORMS[name]
        beta = form.beta if self.beta is None else self.beta
        return Options(
            beta=beta,
            smoothing=form.smoothing if self.smoothing is None else self.smoothing,
            gamma=form.gamma_beta_ratio * beta if self.gamma is None else self.gamma,
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
        """Whether it learns from pairs, not from single labeled replies."""
        return all(form.paired for form in self._forms.values())

    @property
    def reference(self) -> bool:
        """Whether it needs a reference policy (column ref_logp)."""
        return not all(form.reference_free for form in self._forms.values())

    @property
    def mismatched(self) -> bool:
        """Whether it needs replies to other prompts (column mismatched)."""
        return any(form.mismatched for form in self._forms.values())

    @property
    def _forms(self) -> dict[str, PreferenceForm]:
        return {name: FORMS[name] for name in self.losses}

    @property
    def _has_preference_term(self) -> bool:
        return any(form.function or form.unpaired_function for form in self._forms.values())

    @property
    def _nll_weight(self) -> float:
        if self.nll_weight is not None:
            return self.nll_weight
        return sum(weight * FORMS[name].nll_weight for name, weight in self.losses.items())

    # The interface of an objective.

    @property
    def unit(self) -> Literal["reply", "group", "batch"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        if self.mismatched or any(form.sorts_the_step for form in self._forms.values()):
            return "batch"
        return "group" if self.paired else "reply"

    @property
    def required_outputs(self) -> frozenset[str]:
        return frozenset({"logp", "sum_p2"} if self.weighting else {"logp"})

    @property
    def required_columns(self) -> frozenset[str]:
        optional = {"ref_logp": self.reference, "mismatched": self.mismatched}
        return frozenset({"mask", "chosen"} | {name for name, needed in optional.items() if needed})

    def counts(self, batch: Batch) -> Mapping[str, float]:
        if self.paired:
            win, lose = self._pairs(batch)
            best = _best(batch, win, lose)[batch.reply_of]
            counts = {"preference": float(len(win)), "nll": float((batch.tok("mask") * best).sum())}
        else:
            counts = {"preference": float(self._labeled(batch).sum()), "nll": float(self._good_tokens(batch).sum())}
        present = {"preference": self._has_preference_term, "nll": bool(self._nll_weight)}
        return {name: count for name, count in counts.items() if present[name]}

    def zero_gradient_mask(self, batch: Batch) -> Bool[Tensor, " reply"]:
        if not self.paired:
            return batch.sum(batch.tok("mask")) == 0
        return ~_mask_at(batch, *self._pairs(batch))

    def __call__(self, outputs: Outputs, batch: Batch) -> Loss:
        return self._loss_of_pairs(outputs, batch) if self.paired else self._loss_of_replies(outputs, batch)

    # Pairs.

    def _pairs(self, batch: Batch) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
        """Indices of the chosen and of the rejected reply of each pair."""
        chosen, group = batch.reply("chosen"), batch.group_of
        trained = batch.sum(batch.tok("mask")) > 0
        better = (chosen[:, None] - chosen > self.margin) & (group[:, None] == group)
        win, lose = (better & trained[:, None] & trained).nonzero(as_tuple=True)
        return win, lose

    def _loss_of_pairs(self, outputs: Outputs, batch: Batch) -> Loss:
        win, lose = self._pairs(batch)
        x = self._replies(outputs, batch, _mask_at(batch, win, lose))
        pairs = self._pair_sums(x, win, lose)
        terms: dict[str, Tensor] = {}
        metrics = self._metrics(x, pairs)
        if self._has_preference_term:
            each = [
                self.losses[name] * form.function(pairs, self.options_of(name))
                for name, form in self._forms.items()
                if form.function
            ]
            loss = torch.stack(each).sum(0)
            if self.weighting:
                weight = self._policy_weight(x, outputs)
                loss = loss * weight[win] * weight[lose]
                metrics["preference/weight"] = ((weight[win] * weight[lose]).sum(), float(len(win)))
            terms["preference"] = loss.sum()
        if self._nll_weight:
            best = x.mask * _best(batch, win, lose)[batch.reply_of]
            nll = -(x.logp * best).sum()
            terms["nll"] = self._nll_weight * nll
            metrics["nll/token"] = (nll.detach(), best.sum())
        return Loss(terms=terms, metrics=metrics)

    def _replies(self, outputs: Outputs, batch: Batch, used: Bool[Tensor, " reply"]) -> _Replies:
        assert outputs.logp is not None
        mask = batch.tok("mask").to(outputs.logp)
        hidden = (mask == 0) | ~used[batch.reply_of]
        logp = outputs.logp.masked_fill(hidden, 0.0)
        ref = batch.tok("ref_logp").to(logp).masked_fill(hidden, 0.0) if self.reference else torch.zeros_like(logp)
        return _Replies(batch, mask.masked_fill(hidden, 0.0), logp, ref, batch.sum(mask.masked_fill(hidden, 0.0)))

    def _pair_sums(self, x: _Replies, win: Int[Tensor, " pair"], lose: Int[Tensor, " pair"]) -> Pairs:
        """Log-probs and lengths by pair, with LD-DPO's weights on the longer reply's tail."""
        n_w, n_l = x.n[win], x.n[lose]
        if self.ld_alpha is None:
            logp, ref = x.sum(x.logp), x.sum(x.ref)
            return Pairs(logp[win], logp[lose], ref[win], ref[lose], n_w, n_l)
        shorter, sums = torch.minimum(n_w, n_l), []
        # The weights depend on the pair, and a reply may be in several: its tokens are repeated for each pair.
        for side in (win, lose):
            tok, pair = _tokens_of(x.batch, side)
            position = x.mask.cumsum(0) - x.mask  # trained tokens before this one, over all replies
            tail = position[tok] - position[_first_tokens(x.batch)[side]][pair] >= shorter[pair]
            weight = x.mask[tok] * torch.where(tail, self.ld_alpha, 1.0).to(x.mask)
            sums.append([torch.zeros_like(n_w).index_add(0, pair, (v[tok] * weight)) for v in (x.logp, x.ref)])
        (logp_w, ref_w), (logp_l, ref_l) = sums
        return Pairs(logp_w, logp_l, ref_w, ref_l, n_w, n_l)

    def _policy_weight(self, x: _Replies, outputs: Outputs) -> Float[Tensor, " reply"]:
        """WPO's weight, exp(mean over tokens of logp - ln sum_v p_v^2); without gradient (eq. 2, arXiv 2406.11827)."""
        assert outputs.sum_p2 is not None
        relative = x.logp.detach() - outputs.sum_p2.detach().masked_fill(x.mask == 0, 1.0).log()
        return (x.sum(relative) / x.n.clamp(min=1.0)).exp()

    def _metrics(self, x: _Replies, pairs: Pairs) -> Metrics:
        chosen, rejected = (v.detach() for v in self._rewards(pairs))
        means = {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/margin": chosen - rejected,
            "rewards/accuracy": (chosen > rejected).to(chosen),
            "logp/chosen": pairs.logp_w,
            "logp/rejected": pairs.logp_l,
            "length/chosen": pairs.n_w,
            "length/rejected": pairs.n_l,
        }
        metrics: Metrics = {name: (v.detach().sum(), float(len(v))) for name, v in means.items()}
        if self.reference:
            # A KL estimate only if the policy generated these replies; on other data merely a distance.
            metrics["kl"] = ((kl.estimate(x.logp.detach(), x.ref, "k3") * x.mask).sum(), x.mask.sum())
        return metrics

    def _rewards(self, pairs: Pairs) -> tuple[Numbers, Numbers]:
        """Implicit rewards of both replies under the first loss."""
        o, first = self.options, FORMS[next(iter(self.losses))]
        if self.reference:
            return o.beta * pairs.r_w, o.beta * pairs.r_l
        return first.reward(pairs.logp_w, pairs.n_w, o), first.reward(pairs.logp_l, pairs.n_l, o)

    # Single labeled replies.

    def _labeled(self, batch: Batch) -> Bool[Tensor, " reply"]:
        """The replies that the loss is averaged over: with trained tokens, and not mismatched."""
        trained = batch.sum(batch.tok("mask")) > 0
        return trained & (batch.reply("mismatched") == 0) if self.mismatched else trained

    def _good_tokens(self, batch: Batch) -> Float[Tensor, " tok"]:
        """The mask of the trained tokens of good replies."""
        return batch.tok("mask") * (self._labeled(batch) & (batch.reply("chosen") > 0.5))[batch.reply_of]

    def _loss_of_replies(self, outputs: Outputs, batch: Batch) -> Loss:
        trained = batch.sum(batch.tok("mask")) > 0
        labeled, good = self._labeled(batch), batch.reply("chosen") > 0.5
        x = self._replies(outputs, batch, trained)
        r = x.sum(x.logp - x.ref)
        z, metrics = self._reference_point(r, labeled, trained & ~labeled)
        ((name, form),) = self._forms.items()
        assert form.unpaired_function is not None
        weight = torch.where(good, self.desirable, self.undesirable).to(r) * labeled
        terms = {
            "preference": (form.unpaired_function(LabeledReplies(r, good, z), self.options_of(name)) * weight).sum()
        }
        if self._nll_weight:
            best = self._good_tokens(batch).to(x.logp)
            nll = -(x.logp * best).sum()
            terms["nll"] = self._nll_weight * nll
            metrics["nll/token"] = (nll.detach(), best.sum())
        logp = x.sum(x.logp)
        for side, mask in (("chosen", labeled & good), ("rejected", labeled & ~good)):
            means = {f"rewards/{side}": self.options.beta * r, f"logp/{side}": logp, f"length/{side}": x.n}
            metrics |= {key: ((v.detach() * mask).sum(), mask.sum()) for key, v in means.items()}
        return Loss(terms=terms, metrics=metrics)

    def _reference_point(
        self, r: Float[Tensor, " reply"], labeled: Bool[Tensor, " reply"], others: Bool[Tensor, " reply"]
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """KTO's z: the mean of r over mismatched replies, at least 0, without gradient; 0 for other losses."""
        if not self.mismatched:
            return r.new_zeros(()), {}
        if bool(labeled.any()) and not bool(others.any()):
            raise TrainError(
                f"{self.loss_type} needs replies to other prompts, and this step has none (column mismatched is 0 for "
                "all): add the transform Mismatched to the stage, and train on at least two samples per rank"
            )
        total = (r.detach() * others).sum()
        return (total / others.sum().clamp(min=1)).clamp(min=0), {"kl/mismatched": (total, others.sum())}


def _mask_at(batch: Batch, *indices: Int[Tensor, " _"]) -> Bool[Tensor, " reply"]:
    """True for the replies with these indices."""
    mask = torch.zeros(batch.replies, dtype=torch.bool, device=batch.group_of.device)
    mask[torch.cat(indices)] = True
    return mask


def _best(batch: Batch, win: Int[Tensor, " pair"], lose: Int[Tensor, " pair"]) -> Bool[Tensor, " reply"]:
    """The replies that win a pair and lose none."""
    return _mask_at(batch, win) & ~_mask_at(batch, lose)


def _first_tokens(batch: Batch) -> Int[Tensor, " reply"]:
    """The index of each reply's first token."""
    sizes = batch.reply_of.bincount(minlength=batch.replies)
    return sizes.cumsum(0) - sizes


def _tokens_of(batch: Batch, replies: Int[Tensor, " pair"]) -> tuple[Int[Tensor, " one"], Int[Tensor, " one"]]:
    """The indices of all tokens of `replies`, in order and with repetitions, and for each the position in `replies`."""
    sizes = batch.reply_of.bincount(minlength=batch.replies)[replies]
    pair = torch.repeat_interleave(torch.arange(len(replies), device=sizes.device), sizes)
    inside = torch.arange(len(pair), device=sizes.device) - (sizes.cumsum(0) - sizes)[pair]
    return _first_tokens(batch)[replies][pair] + inside, pair
