"""Per-token estimators of the KL divergence from a reference policy (Schulman 2020, joschu.net/blog/kl-approx.html)."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

Estimator = Literal["k1", "k2", "k3", "abs"]
KLGradient = Literal["corrected", "plain", "k2"]

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped here before they are exponentiated; there is no gradient beyond."""


def estimate(logp: Float[Tensor, " tok"], ref: Float[Tensor, " tok"], estimator: Estimator) -> Float[Tensor, " tok"]:
    """The estimator's value at each token, for tokens sampled from the policy of `logp`.

    With d = logp - ref: k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d, abs = |d|. In expectation k1 and k3 equal
    KL(policy || ref). Differentiated directly, k2 has the gradient of KL(policy || ref), k3 that of KL(ref || policy),
    and k1 none.
    """
    d = logp - ref
    match estimator:
        case "k1":
            return d
        case "k2":
            return d.square() / 2
        case "k3":
            return (-d).clamp(max=MAX_LOG_RATIO).exp() - 1 + d
        case "abs":
            return d.abs()


def penalty(
    logp: Float[Tensor, " tok"],
    ref: Float[Tensor, " tok"],
    ratio: Float[Tensor, " tok"],
    estimator: Estimator,
    gradient: KLGradient,
    bound: float | None = None,
) -> Float[Tensor, " tok"]:
    """The estimator as a loss, [tok], with the gradient that `gradient` selects.

    corrected: multiplied by the differentiable policy ratio, which gives the gradient of the estimator's expectation;
    plain: differentiated directly; k2: the estimator's value with the gradient of k2. `bound`: the estimator is clamped
    to [-bound, bound], without gradient beyond.
    """
    value = estimate(logp, ref, estimator)
    if bound is not None:
        value = value.clamp(-bound, bound)
    match gradient:
        case "corrected":
            return ratio * value
        case "plain":
            return value
        case "k2":
            carrier = estimate(logp, ref, "k2")
            return value.detach() + carrier - carrier.detach()
