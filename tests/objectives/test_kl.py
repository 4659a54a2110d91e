"""KL estimators: values, and their expected gradients, of which only some are those of a KL divergence."""

from math import log
from typing import Any

import pytest
import torch

from mmpost.objectives.kl import estimate, penalty

P = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
Q = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64)
REVERSE = [0.237568, -0.010707, -0.226861]
FORWARD = [0.25, 0.05, -0.30]


@pytest.mark.parametrize(
    ("estimator", "value"), [("k1", 0.693147), ("k2", 0.240227), ("k3", 0.193147), ("abs", 0.693147)]
)
def test_kl_estimator_values(estimator, value):
    logp, ref = (torch.tensor([log(p)], dtype=torch.float64) for p in (0.5, 0.25))
    assert estimate(logp, ref, estimator).item() == pytest.approx(value, abs=1e-6)


def expected_gradient(estimator: Any, gradient: Any) -> list[float]:
    """Expected gradient on the logits of a policy over three tokens."""
    logits = P.log().requires_grad_()
    logp = torch.log_softmax(logits, 0)
    loss = penalty(logp, Q.log(), (logp - logp.detach()).exp(), estimator, gradient)
    (grad,) = torch.autograd.grad((P * loss).sum(), logits)
    return grad.tolist()


@pytest.mark.parametrize(
    ("estimator", "gradient", "expected"),
    [
        ("k1", "plain", [0.0, 0.0, 0.0]),
        ("k2", "plain", REVERSE),
        ("k3", "plain", FORWARD),
        ("k1", "corrected", REVERSE),
        ("k3", "corrected", REVERSE),
        ("k1", "k2", REVERSE),
        ("k3", "k2", REVERSE),
        ("abs", "k2", REVERSE),
    ],
)
def test_kl_estimator_gradients(estimator, gradient, expected):
    assert expected_gradient(estimator, gradient) == pytest.approx(expected, abs=1e-6)


def test_k1_and_k3_are_unbiased():
    kl = (P * (P / Q).log()).sum().item()
    for estimator in ("k1", "k3"):
        assert (P * estimate(P.log(), Q.log(), estimator)).sum().item() == pytest.approx(kl)


def test_kl_far_from_the_reference_is_finite():
    logp = torch.tensor([-400.0], requires_grad=True)
    value = estimate(logp, torch.zeros(1), "k3")
    value.sum().backward()
    assert value.isfinite().all()
    assert logp.grad is not None
    assert logp.grad.isfinite().all()
