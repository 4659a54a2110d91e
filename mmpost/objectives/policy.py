"""Policy-gradient losses of the GRPO family: each published loss is a preset of the same few choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from mmpost.config.settings import Bound
from mmpost.objectives import kl
from mmpost.objectives._names import require_known
from mmpost.objectives.policy_forms import (
    FORMS,
    PolicyForm,
    PolicyOptions,
    PolicyTokens,
    RatioLevel,
    Reduction,
    probability_ratio,
    sampler_log_weight,
    surrogates,
)
from mmpost.types import Batch, Loss, Objective, Outputs

Metrics = dict[str, tuple[float | Tensor, float | Tensor]]


@dataclass(frozen=True)
class _Inputs:
    """One micro-batch. Masked tokens and those of zero-gradient replies hold zeros: they may not be computed."""

    batch: Batch
    hidden: Bool[Tensor, " tok"]
    """The tokens that hold zeros."""
    mask: Float[Tensor, " tok"]
    logp: Float[Tensor, " tok"]
    old: Float[Tensor, " tok"]
    advantage: Float[Tensor, " tok"]
    columns: Mapping[str, Float[Tensor, " tok"]]
    logged: Float[Tensor, " tok"]
    """The mask of the metrics."""


def _mean(x: Float[Tensor, " tok"], weight: Float[Tensor, " tok"]) -> tuple[Tensor, Tensor]:
    """(sum, count) of a weighted mean, for the log."""
    return (x.detach() * weight).sum(), weight.sum()


class PolicyLoss(Objective):
    """Policy gradient with advantages from a transform; `loss_type` names a published loss, other fields modify it.

    Terms: "policy" (with the KL penalty, which is reduced in the same way) and "entropy" (a mean over trained tokens).
    Log-ratios are clamped to +-20. Metrics leave out injected replies and those without gradient. A loss is a row of
    `mmpost.objectives.policy_forms.FORMS`, where its formula and paper are.
    """

    loss_type: str = "grpo"
    """grpo, bnpo, dr_grpo, dapo, gspo, luspo, rloo, cispo, sapo or vespo: defaults for the four settings below."""
    surrogate: str | None = None
    """How the ratio enters: PPO's clip, a bounded weight (cispo), a soft gate (sapo), a gamma weight (vespo)."""
    ratio: RatioLevel | None = None
    """Probability ratio of each token, or of its reply: the geometric mean or product over the reply's tokens."""
    reduction: Reduction | None = None
    """Mean over replies of their token mean (reply_mean) or token sum (reply_sum); sum over tokens divided by the
    trained tokens of the optimizer step, of the rollout batch per update, or by replies x `max_tokens` (constant)."""
    clip_low: float | None = Field(default=None, gt=0)
    """The ratio is clipped at 1 - clip_low."""
    clip_high: Bound | None = Field(default=None, gt=0)
    """The ratio is clipped at 1 + clip_high (.inf: not); by default as published, else clip_low."""
    delta: Bound | None = None
    """Upper bound of the ratio where the advantage is negative: two-sided clip, also known as dual clip. None or .inf:
    no bound."""
    cispo_floor: float = Field(default=0.0, ge=0, le=1)
    """Least weight of a token."""
    cispo_cap: Bound = Field(default=5.0, gt=0)
    """Largest weight of a token, as a ratio (not a distance from 1); .inf: no bound."""
    sapo_positive: float = Field(default=1.0, gt=0)
    """Temperature of the gate for positive advantages."""
    sapo_negative: float = Field(default=1.05, gt=0)
    """Temperature of the gate for all other advantages."""
    vespo_positive: tuple[float, float] = (2.0, 3.0)
    """k and lambda of the weight for advantages of at least 0."""
    vespo_negative: tuple[float, float] = (3.0, 2.0)
    """k and lambda of the weight for negative advantages."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Divisor of reduction=constant: the most tokens that a reply may have."""
    old: Literal["current", "column"] = "current"
    """Old log-probs: the current ones, without gradient (one update per rollout batch), or column old_logp, which the
    trainer writes if no transform did."""
    beta: float = Field(default=0.0, ge=0)
    """Weight of the KL penalty, against column ref_logp."""
    kl_estimator: kl.Estimator = "k3"
    """k1 (d), k2 (d^2 / 2), k3 (exp(-d) - 1 + d) or abs, with d the log-ratio of policy to reference."""
    kl_bound: Bound | None = Field(default=None, gt=0)
    """Estimates are clamped to [-kl_bound, kl_bound], as EasyR1 (verl) does with 10; None or .inf: not."""
    kl_gradient: kl.KLGradient = "corrected"
    """corrected: times the policy ratio, the gradient of the estimator's expectation; plain: direct; k2: that of k2."""
    entropy: float = Field(default=0.0, ge=0)
    """Weight of the entropy bonus, a mean over trained tokens."""
    mismatch: Literal["off", "token", "sequence", "geometric"] = "off"
    """Importance weight pi_old / pi_sampler (column behaviour_logp): per token, per reply, or keep replies whose
    geometric mean over tokens is within the bounds."""
    mismatch_action: Literal["truncate", "mask"] = "mask"
    """Weights outside the bounds are set to the bound, or to 0."""
    mismatch_low: float = Field(default=0.0, ge=0)
    """Lower bound of the weight."""
    mismatch_high: Bound = Field(default=3.0, gt=0)
    """Upper bound of the weight; .inf: none."""
    off_policy_max: Bound | None = None
    """Drop replies of negative advantage whose log(pi_sampler / pi), averaged over tokens, exceeds this; None or .inf:
    none."""
    mask_truncated: bool = False
    """Mask replies that reached the token limit (column truncated); they still count as replies."""
    injected: bool = False
    """Some replies may be injected: column injected (1 or 0) keeps them out of the metrics and adds a metric with their
    fraction of the gradient weight."""

    @field_validator("loss_type")
    @classmethod
    def _known_loss(cls, value: str) -> str:
        require_known(value, FORMS, "loss_type")
        return value

    @field_validator("surrogate")
    @classmethod
    def _known_surrogate(cls, value: str | None) -> str | None:
        if value is not None:
            require_known(value, surrogates(), "surrogate")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> PolicyLoss:
        form = self.form
        others = [s for s in surrogates().values() if s.name != form.surrogate.name]
        for name in (name for surrogate in others for name in surrogate.options):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} has no effect on the surrogate {form.surrogate.name!r} of loss_type={self.loss_type}; "
                    "drop it"
                )
        if form.reduction != "constant" and self.max_tokens is not None:
            raise ValueError(
                f"max_tokens only applies to reduction=constant (dr_grpo), found reduction={form.reduction}, "
                f"max_tokens={self.max_tokens}; drop it"
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
        self._check_mismatch()
        return self

    def _check_mismatch(self) -> None:
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
    def form(self) -> PolicyForm:
        """The row of `loss_type`, with what the other fields change."""
        base = FORMS[self.loss_type]
        return PolicyForm(
            surrogate=base.surrogate if self.surrogate is None else surrogates()[self.surrogate],
            ratio=self.ratio or base.ratio,
            reduction=self.reduction or base.reduction,
            low=base.low if self.clip_low is None else self.clip_low,
            high=base.high if self.clip_high is None else self.clip_high,
        )

    @property
    def options(self) -> PolicyOptions:
        """The hyper-parameters of the surrogate."""
        form = self.form
        return PolicyOptions(
            low=form.low,
            high=form.low if form.high is None else form.high,
            delta=self.delta,
            cispo_floor=self.cispo_floor,
            cispo_cap=self.cispo_cap,
            sapo_positive=self.sapo_positive,
            sapo_negative=self.sapo_negative,
            vespo_positive=self.vespo_positive,
            vespo_negative=self.vespo_negative,
        )

    @property
    def denominator_scope(self) -> Literal["step", "rollout"]:
        return "rollout" if self.form.reduction == "rollout_tokens" else "step"

    @property
    def required_outputs(self) -> frozenset[str]:
        return frozenset({"logp", "entropy" if self.entropy else "entropy_value"})

    @property
    def required_columns(self) -> frozenset[str]:
        optional = {
            "old_logp": self.old == "column",
            "ref_logp": self.beta > 0,
            "behaviour_logp": self.mismatch != "off",
            "truncated": self.mask_truncated,
            "injected": self.injected,
        }
        return frozenset({"advantage", "mask"} | {name for name, needed in optional.items() if needed})

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
        gradient_weight = mask if self.beta or self.entropy else mask * batch.tok("advantage").abs()
        return batch.sum(gradient_weight) == 0

    def __call__(self, outputs: Outputs, batch: Batch) -> Loss:
        x = self._inputs(outputs, batch)
        form = self.form
        ratio = probability_ratio(x.logp, x.old, x.mask, batch, form.ratio)
        log_weight, sequence_log_weight = self._sampler_log_weight(x)
        tokens = PolicyTokens(ratio, x.logp, x.old, x.advantage, x.mask, batch, sequence_log_weight)
        loss = form.surrogate.function(tokens, self.options)
        if self.off_policy_max is not None:
            drift = batch.sum((x.columns.get("behaviour_logp", x.old) - x.logp.detach()) * x.mask)
            near = drift / batch.lengths(x.mask) <= self.off_policy_max
            loss = loss * ((x.advantage >= 0) | near[batch.reply_of])
        if log_weight is not None and not form.surrogate.reads_sampler_weight:
            loss = loss * log_weight.exp()
        if self.beta:
            loss = loss + self.beta * kl.penalty(
                x.logp, x.columns["ref_logp"], ratio, self.kl_estimator, self.kl_gradient, self.kl_bound
            )
        token_weight = batch.reply_mean(x.mask) if form.reduction == "reply_mean" else x.mask
        terms = {"policy": (loss * token_weight).sum()}
        metrics = self._metrics(ratio, x)
        if self.injected:
            gradient_weight = token_weight * x.advantage.abs()
            injected = (gradient_weight * x.columns["injected"]).sum()
            metrics["policy/injected_fraction"] = (injected, gradient_weight.sum())
        if outputs.entropy is not None:
            entropy = outputs.entropy.masked_fill(x.hidden, 0.0)
            metrics["entropy"] = _mean(entropy, x.logged)
            if self.entropy:
                terms["entropy"] = -self.entropy * (entropy * x.mask).sum()
        if log_weight is not None:
            metrics["mismatch/weight"] = _mean(log_weight.exp(), x.logged)
            metrics["mismatch/gap"] = _mean((x.old - x.columns["behaviour_logp"]).abs(), x.logged)
        return Loss(terms=terms, metrics=metrics)

    def _mask(self, batch: Batch) -> Float[Tensor, " tok"]:
        mask = batch.tok("mask")
        return mask * (1 - batch.tok("truncated")) if self.mask_truncated else mask

    def _inputs(self, outputs: Outputs, batch: Batch) -> _Inputs:
        assert outputs.logp is not None
        mask = self._mask(batch).to(outputs.logp)
        without_gradient = self.zero_gradient_mask(batch)[batch.reply_of]
        hidden = (mask == 0) | without_gradient
        # Fill instead of multiplying: what was not computed may be inf or NaN, and 0 times that is NaN.
        logp = outputs.logp.masked_fill(hidden, 0.0)
        columns = {name: batch.tok(name).to(logp).masked_fill(hidden, 0.0) for name in self.required_columns - {"mask"}}
        logged = mask * ~without_gradient
        return _Inputs(
            batch=batch,
            hidden=hidden,
            mask=mask,
            logp=logp,
            old=columns.get("old_logp", logp.detach()),
            advantage=columns["advantage"],
            columns=columns,
            logged=logged * (1 - columns["injected"]) if self.injected else logged,
        )

    def _sampler_log_weight(
        self, x: _Inputs
    ) -> tuple[Float[Tensor, " tok"], Float[Tensor, " reply"]] | tuple[None, None]:
        if self.mismatch == "off":
            return None, None
        gap = x.old - x.columns["behaviour_logp"]
        bounds = (self.mismatch_low, self.mismatch_high)
        return sampler_log_weight(gap, x.mask, x.batch, self.mismatch, self.mismatch_action, bounds)

    def _metrics(self, ratio: Float[Tensor, " tok"], x: _Inputs) -> Metrics:
        metrics: Metrics = {"policy/ratio": _mean(ratio, x.logged)}
        clip_range = self.form.surrogate.clip_range
        if clip_range is not None:
            low, high = clip_range(self.options)
            metrics["policy/clip_low"] = _mean(((ratio < 1 - low) & (x.advantage < 0)).to(ratio), x.logged)
            metrics["policy/clip_high"] = _mean(((ratio > 1 + high) & (x.advantage > 0)).to(ratio), x.logged)
        if self.beta:
            metrics["kl"] = _mean(kl.estimate(x.logp, x.columns["ref_logp"], self.kl_estimator), x.logged)
        return metrics
