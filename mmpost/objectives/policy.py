"""The policy-gradient losses of the GRPO family: one class, a point on a grid of choices for each published loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor

from mmpost.objectives import kl, pieces
from mmpost.objectives.reduction import lengths, reply_mean
from mmpost.types import Batch, Loss, Objective, Outputs

Surrogate = Literal["clip", "cispo", "sapo", "vespo"]
Reduction = Literal["reply_mean", "reply_sum", "step_tokens", "rollout_tokens", "constant"]


@dataclass(frozen=True)
class Form:
    """What a named loss is made of."""

    surrogate: Surrogate = "clip"
    ratio: pieces.Level = "token"
    reduction: Reduction = "reply_mean"
    low: float = 0.2
    high: float | None = None


FORMS: Mapping[str, Form] = {
    "grpo": Form(),
    "bnpo": Form(reduction="step_tokens"),
    "dr_grpo": Form(reduction="constant"),
    "dapo": Form(reduction="rollout_tokens", high=0.28),
    "gspo": Form(ratio="sequence_mean", low=3e-4, high=4e-4),
    "luspo": Form(ratio="sequence_mean", reduction="reply_sum"),
    "rloo": Form(ratio="sequence_sum"),
    "cispo": Form("cispo", reduction="rollout_tokens"),
    "sapo": Form("sapo"),
    "vespo": Form("vespo", reduction="rollout_tokens"),
}

_ONLY: Mapping[Surrogate, tuple[str, ...]] = {
    "clip": ("clip_low", "clip_high", "delta"),
    "cispo": ("cispo_floor", "cispo_cap"),
    "sapo": ("sapo_positive", "sapo_negative"),
    "vespo": ("vespo_positive", "vespo_negative"),
}


@dataclass(frozen=True)
class _Inputs:
    """One micro-batch, with zeros where the mask is zero and for idle replies, which nobody may have computed."""

    batch: Batch
    hidden: Bool[Tensor, " tok"]
    mask: Float[Tensor, " tok"]
    logp: Float[Tensor, " tok"]
    old: Float[Tensor, " tok"]
    advantage: Float[Tensor, " tok"]
    columns: Mapping[str, Float[Tensor, " tok"]]
    seen: Float[Tensor, " tok"]
    """The mask of the metrics."""


def _mean(x: Float[Tensor, " tok"], weight: Float[Tensor, " tok"]) -> tuple[Tensor, Tensor]:
    return (x.detach() * weight).sum(), weight.sum()


class PolicyLoss(Objective):
    """Policy gradient with advantages from a transform; `loss` names a published form, the other fields change it.

    Terms: "policy" (KL penalty included, reduced like the rest) and "entropy" (a mean over trained tokens).
    Ratios are clamped to exp(+-20). Metrics leave out injected and idle replies.
    """

    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "luspo", "rloo", "cispo", "sapo", "vespo"] = "grpo"
    """The published loss whose surrogate, ratio, reduction and clip range are taken where they are not given below."""
    surrogate: Surrogate | None = None
    """What the ratio does: PPO's clip, a bounded weight (cispo), a soft gate (sapo), a gamma weight (vespo)."""
    ratio: pieces.Level | None = None
    """Whose probability ratio: each token's, or its reply's geometric mean or product over tokens."""
    reduction: Reduction | None = None
    """Mean over replies of their token mean (reply_mean) or token sum (reply_sum); sum over tokens divided by the
    trained tokens of the optimiser step, of the rollout batch per update, or by replies x `max_tokens` (constant)."""
    clip_low: float | None = Field(default=None, gt=0)
    """The ratio is clipped at 1 - clip_low."""
    clip_high: float | None = Field(default=None, gt=0)
    """The ratio is clipped at 1 + clip_high; by default as the loss was published, else clip_low."""
    delta: float | None = None
    """Bound of the ratio where the advantage is negative: two-sided clip, also known as dual clip."""
    cispo_floor: float = Field(default=0.0, ge=0, le=1)
    """Least weight of a token."""
    cispo_cap: float = 5.0
    """Largest weight of a token, as a ratio (not a distance from 1)."""
    sapo_positive: float = Field(default=1.0, gt=0)
    """Temperature of the gate for positive advantages."""
    sapo_negative: float = Field(default=1.05, gt=0)
    """Temperature of the gate for the others."""
    vespo_positive: tuple[float, float] = (2.0, 3.0)
    """k and lambda of the weight for advantages of at least 0."""
    vespo_negative: tuple[float, float] = (3.0, 2.0)
    """k and lambda of the weight for negative advantages."""
    max_tokens: int | None = Field(default=None, gt=0)
    """The constant of the reduction "constant": the most tokens that a reply may have."""
    old: Literal["current", "column"] = "current"
    """Old log-probabilities: the policy's own at this moment (one update per rollout batch), or column old_logp, which
    the trainer writes where no transform did."""
    beta: float = Field(default=0.0, ge=0)
    """Weight of the KL penalty in the loss, against column ref_logp."""
    kl_estimator: kl.Estimator = "k3"
    """k1 (d), k2 (d^2 / 2), k3 (exp(-d) - 1 + d) or abs, with d the log-ratio of policy and reference."""
    kl_gradient: kl.KLGradient = "corrected"
    """corrected: times the policy ratio, the gradient of the estimator's expectation; plain: none; k2: that of k2."""
    entropy: float = Field(default=0.0, ge=0)
    """Weight of the entropy bonus, a mean over trained tokens."""
    mismatch: Literal["off", "token", "sequence", "geometric"] = "off"
    """Weight by pi_old / pi_sampler (column behaviour_logp): per token, per reply, or keep replies by its mean."""
    mismatch_action: Literal["truncate", "mask"] = "mask"
    """Weights outside the bounds are cut to the bound, or become 0."""
    mismatch_low: float = Field(default=0.0, ge=0)
    """Lower bound of the weight."""
    mismatch_high: float = Field(default=3.0, gt=0)
    """Upper bound of the weight."""
    off_policy_max: float | None = None
    """Drop replies of negative advantage whose mean log(pi_sampler / pi) over tokens exceeds this."""
    mask_truncated: bool = False
    """Leave out replies that were cut off (column truncated); they still count as replies."""
    injected: bool = False
    """Some replies may be injected: column injected (1 or 0) keeps them out of the metrics and gives their share."""

    @model_validator(mode="after")
    def _possible(self) -> PolicyLoss:
        form = self.form
        for name in (name for s, names in _ONLY.items() if s != form.surrogate for name in names):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} has no effect on the surrogate {form.surrogate!r} of loss={self.loss_type}; drop it"
                )
        if form.reduction != "constant" and self.max_tokens is not None:
            raise ValueError(
                f"max_tokens goes with reduction=constant (dr_grpo) and with nothing else; found "
                f"reduction={form.reduction}, max_tokens={self.max_tokens}"
            )
        if self.cispo_cap < 1:
            raise ValueError(
                f"cispo_cap is a ratio and must be at least 1, found {self.cispo_cap}: every gradient would be scaled "
                f"down by it; set 1 + {self.cispo_cap} if a distance from 1 was meant"
            )
        if self.delta is not None and self.delta <= 1 + (form.high or form.low):
            raise ValueError(f"delta must exceed 1 + clip_high = {1 + (form.high or form.low)}, found {self.delta}")
        if self.beta and self.kl_estimator == "k1" and self.kl_gradient == "plain":
            raise ValueError("k1 with kl_gradient=plain has no expected gradient; use kl_gradient=corrected or k2")
        self._possible_mismatch()
        return self

    def _possible_mismatch(self) -> None:
        if self.old == "current" and (self.mismatch != "off" or self.off_policy_max is not None):
            raise ValueError("mismatch and off_policy_max compare with column old_logp; set old=column")
        if self.mismatch_low >= self.mismatch_high:
            raise ValueError(f"mismatch_low={self.mismatch_low} must be below mismatch_high={self.mismatch_high}")
        narrow = self.mismatch_action == "mask" and 0 < self.mismatch_low < 1 < self.mismatch_high
        if self.mismatch == "geometric" and not narrow:
            raise ValueError(
                "mismatch=geometric keeps or drops replies: it needs mismatch_action=mask and bounds around 1 "
                f"(0.999 and 1.001 are usual), found {self.mismatch_action}, {self.mismatch_low}, {self.mismatch_high}"
            )

    @property
    def form(self) -> Form:
        """What the loss is made of, with this object's own changes."""
        base = FORMS[self.loss_type]
        low = base.low if self.clip_low is None else self.clip_low
        high = base.high if self.clip_high is None else self.clip_high
        return Form(
            self.surrogate or base.surrogate, self.ratio or base.ratio, self.reduction or base.reduction, low, high
        )

    @property
    def denominator_scope(self) -> Literal["step", "rollout"]:
        return "rollout" if self.form.reduction == "rollout_tokens" else "step"

    @property
    def required_outputs(self) -> frozenset[str]:
        return frozenset({"logp", "entropy" if self.entropy else "entropy_value"})

    @property
    def required_columns(self) -> frozenset[str]:
        reads = {
            "old_logp": self.old == "column",
            "ref_logp": self.beta > 0,
            "behaviour_logp": self.mismatch != "off",
            "truncated": self.mask_truncated,
            "injected": self.injected,
        }
        return frozenset({"advantage", "mask"} | {name for name, read in reads.items() if read})

    @property
    def policy_logprob_columns(self) -> frozenset[str]:
        return frozenset({"old_logp"} if self.old == "column" else ())

    @property
    def on_policy_only(self) -> bool:
        return self.old == "current"

    def counts(self, batch: Batch) -> Mapping[str, float]:
        reduction = self.form.reduction
        tokens = float(self._mask(batch).sum())
        count = tokens if reduction in ("step_tokens", "rollout_tokens") else float(batch.replies)
        if reduction == "constant":
            if self.max_tokens is None:
                raise ValueError("reduction=constant (dr_grpo) divides by max_tokens, found none; set it")
            count *= self.max_tokens
        return {"policy": count, "entropy": tokens} if self.entropy else {"policy": count}

    def zero_gradient_mask(self, batch: Batch) -> Bool[Tensor, " reply"]:
        mask = self._mask(batch)
        pull = mask if self.beta or self.entropy else mask * batch.tok("advantage").abs()
        return batch.sum(pull) == 0

    def __call__(self, outputs: Outputs, batch: Batch) -> Loss:
        x = self._inputs(outputs, batch)
        form = self.form
        ratio = pieces.ratio(x.logp, x.old, x.mask, batch, form.ratio)
        weight, sequence_weight = self._sampler_weight(x)
        loss = self._surrogate(ratio, x, sequence_weight)
        if self.off_policy_max is not None:
            drift = batch.sum((x.columns.get("behaviour_logp", x.old) - x.logp.detach()) * x.mask)
            near = drift / lengths(batch, x.mask) <= self.off_policy_max
            loss = loss * ((x.advantage >= 0) | near[batch.reply_of])
        if weight is not None and form.surrogate != "vespo":
            loss = loss * weight.exp()
        if self.beta:
            loss = loss + self.beta * kl.penalty(
                x.logp, x.columns["ref_logp"], ratio, self.kl_estimator, self.kl_gradient
            )
        share = reply_mean(batch, x.mask) if form.reduction == "reply_mean" else x.mask
        terms = {"policy": (loss * share).sum()}
        metrics = self._metrics(ratio, x)
        if self.injected:
            pull = share * x.advantage.abs()
            metrics["policy/injected_share"] = ((pull * x.columns["injected"]).sum(), pull.sum())
        if outputs.entropy is not None:
            entropy = outputs.entropy.masked_fill(x.hidden, 0.0)
            metrics["entropy"] = _mean(entropy, x.seen)
            if self.entropy:
                terms["entropy"] = -self.entropy * (entropy * x.mask).sum()
        if weight is not None:
            metrics["mismatch/weight"] = _mean(weight.exp(), x.seen)
            metrics["mismatch/gap"] = _mean((x.old - x.columns["behaviour_logp"]).abs(), x.seen)
        return Loss(terms=terms, metrics=metrics)

    def _mask(self, batch: Batch) -> Float[Tensor, " tok"]:
        mask = batch.tok("mask")
        return mask * (1 - batch.tok("truncated")) if self.mask_truncated else mask

    def _inputs(self, outputs: Outputs, batch: Batch) -> _Inputs:
        assert outputs.logp is not None
        mask = self._mask(batch).to(outputs.logp)
        idle = self.zero_gradient_mask(batch)[batch.reply_of]
        hidden = (mask == 0) | idle
        logp = outputs.logp.masked_fill(hidden, 0.0)
        columns = {name: batch.tok(name).to(logp).masked_fill(hidden, 0.0) for name in self.required_columns - {"mask"}}
        seen = mask * ~idle
        return _Inputs(
            batch=batch,
            hidden=hidden,
            mask=mask,
            logp=logp,
            old=columns.get("old_logp", logp.detach()),
            advantage=columns["advantage"],
            columns=columns,
            seen=seen * (1 - columns["injected"]) if self.injected else seen,
        )

    @property
    def _range(self) -> tuple[float, float]:
        form = self.form
        return form.low, form.low if form.high is None else form.high

    def _surrogate(
        self, ratio: Float[Tensor, " tok"], x: _Inputs, sequence_weight: Float[Tensor, " reply"] | None
    ) -> Float[Tensor, " tok"]:
        match self.form.surrogate:
            case "clip":
                return pieces.clip(ratio, x.advantage, *self._range, self.delta)
            case "cispo":
                return pieces.cispo(ratio, x.logp, x.advantage, self.cispo_floor, self.cispo_cap)
            case "sapo":
                return pieces.sapo(ratio, x.advantage, self.sapo_positive, self.sapo_negative)
            case "vespo":
                log_w = pieces.sequence_log_ratio(x.logp, x.old, x.mask, x.batch)
                if sequence_weight is not None:
                    log_w = log_w + sequence_weight
                return pieces.vespo(x.logp, x.advantage, log_w, x.batch, self.vespo_positive, self.vespo_negative)

    def _sampler_weight(self, x: _Inputs) -> tuple[Float[Tensor, " tok"], Float[Tensor, " reply"]] | tuple[None, None]:
        if self.mismatch == "off":
            return None, None
        gap = x.old - x.columns["behaviour_logp"]
        bounds = (self.mismatch_low, self.mismatch_high)
        return pieces.mismatch(gap, x.mask, x.batch, self.mismatch, self.mismatch_action, bounds)

    def _metrics(self, ratio: Float[Tensor, " tok"], x: _Inputs) -> dict[str, tuple[float | Tensor, float | Tensor]]:
        metrics: dict[str, tuple[float | Tensor, float | Tensor]] = {"policy/ratio": _mean(ratio, x.seen)}
        clips = {"clip": self._range, "cispo": (1 - self.cispo_floor, self.cispo_cap - 1)}
        if self.form.surrogate in clips:
            low, high = clips[self.form.surrogate]
            metrics["policy/clip_low"] = _mean(((ratio < 1 - low) & (x.advantage < 0)).to(ratio), x.seen)
            metrics["policy/clip_high"] = _mean(((ratio > 1 + high) & (x.advantage > 0)).to(ratio), x.seen)
        if self.beta:
            metrics["kl"] = _mean(kl.estimate(x.logp, x.columns["ref_logp"], self.kl_estimator), x.seen)
        return metrics
