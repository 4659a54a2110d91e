"""Estimators of the divergence from a reference policy, token by token."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

Estimator = Literal["k1", "k2", "k3", "abs"]
KLGradient = Literal["corrected", "plain", "k2"]

CLAMP = 20.0
"""Bound of log-ratios before they are exponentiated; beyond it there is no gradient."""


def estimate(logp: Float[Tensor, " tok"], ref: Float[Tensor, " tok"], estimator: Estimator) -> Float[Tensor, " tok"]:
    """The estimator's value at each token, for tokens drawn from the policy of `logp`.

    With d = logp - ref: k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d, abs = |d|. In expectation k1 and k3 are
    KL(policy || ref). As losses, differentiated as they stand, k2 has the gradient of KL(policy || ref), k3 that of
    KL(ref || policy), and k1 none.
    """
    d = logp - ref
    match estimator:
        case "k1":
            return d
        case "k2":
            return d.square() / 2
        case "k3":
            return (-d).clamp(max=CLAMP).exp() - 1 + d
        case "abs":
            return d.abs()


def penalty(
    logp: Float[Tensor, " tok"],
    ref: Float[Tensor, " tok"],
    ratio: Float[Tensor, " tok"],
    estimator: Estimator,
    gradient: KLGradient,
) -> Float[Tensor, " tok"]:
    """The estimator as a loss; `gradient` says which gradient its value comes with.

    corrected: multiplied by the differentiable policy ratio, so that the gradient is that of the estimator's own
    expectation; plain: differentiated as it stands; k2: the estimator's value with the gradient of k2.
    """
    value = estimate(logp, ref, estimator)
    match gradient:
        case "corrected":
            return ratio * value
        case "plain":
            return value
        case "k2":
            carrier = estimate(logp, ref, "k2")
            return value.detach() + carrier - carrier.detach()
