"""Policy losses against closed forms."""

import math
from math import log
from typing import Any

import pytest
import torch

from mmpost.objectives.policy import PolicyLoss
from mmpost.objectives.policy_forms import FORMS
from mmpost.types import Outputs
from tests.objectives.ragged import batch, flat, select, total

OLD_LOGP = [[log(0.5)] * 2, [log(0.5)] * 4]
RATIOS = [[1.5, 1.0], [0.5, 1.0, 1.3, 0.9]]
MOVED_LOGP = [[log(0.5 * c) for c in row] for row in RATIOS]


def run(loss: PolicyLoss, logp=OLD_LOGP, **columns):
    """(loss, gradient at each token) of two replies of 2 and 4 tokens with advantages +1 and -1."""
    lp = flat(logp)
    value = total(loss, [(batch([2, 4], **{"advantage": [1.0, -1.0], **columns}), Outputs(logp=lp))])
    value.backward()
    assert lp.grad is not None
    return value.item(), lp.grad.tolist()


def policy_loss(loss: Any, **fields: Any) -> PolicyLoss:
    return PolicyLoss(loss_type=loss, max_tokens=10 if loss == "dr_grpo" else None, **fields)


def offpolicy(loss: str, **fields):
    return run(policy_loss(loss, old="column", **fields), logp=MOVED_LOGP, old_logp=OLD_LOGP)


@pytest.mark.parametrize(
    ("loss", "value", "first", "second"),
    [
        ("grpo", 0.0, -0.25, 0.125),
        ("bnpo", 1 / 3, -1 / 6, 1 / 6),
        ("dapo", 1 / 3, -1 / 6, 1 / 6),
        ("dr_grpo", 0.1, -0.05, 0.05),
    ],
)
def test_on_policy(loss, value, first, second):
    loss_value, grad = run(policy_loss(loss))
    assert loss_value == pytest.approx(value, abs=1e-9)
    assert grad == pytest.approx([first] * 2 + [second] * 4, abs=1e-9)


def test_off_policy_clips():
    value, grad = offpolicy("grpo")
    assert value == pytest.approx(-0.05)
    assert grad == pytest.approx([0, -0.25, 0, 0.125, 0.1625, 0.1125])
    sixths = [0, -1 / 6, 0, 1 / 6, 1.3 / 6, 0.15]
    for loss in ("bnpo", "dapo"):
        value, grad = offpolicy(loss, clip_high=0.2)
        assert value == pytest.approx(0.3)
        assert grad == pytest.approx(sixths)
    assert offpolicy("dr_grpo")[0] == pytest.approx(0.09)


def test_clip_higher_and_two_sided_clip():
    value, grad = offpolicy("dapo")
    assert value == pytest.approx(0.286667, abs=1e-6)
    assert grad == pytest.approx([0, -1 / 6, 0, 1 / 6, 1.3 / 6, 0.15])
    value, grad = offpolicy("dapo", clip_high=0.2, delta=1.25)
    assert value == pytest.approx(0.291667, abs=1e-6)
    assert grad[4] == 0


def test_two_sided_clip_is_the_dual_clip():
    ratios = torch.linspace(0.05, 6, 200, dtype=torch.float64)
    for advantage in (-1.3, 0.7):
        c = ratios.clone().requires_grad_()
        ppo = -torch.minimum(c * advantage, c.clamp(0.8, 1.2) * advantage)
        dual = torch.minimum(ppo, torch.full_like(c, -3.0 * advantage)) if advantage < 0 else ppo
        (expected,) = torch.autograd.grad(dual.sum(), c)
        lp = ratios.log().requires_grad_()
        reply_batch = batch([200], advantage=[advantage], old_logp=[[0.0] * 200])
        loss = PolicyLoss(old="column", delta=3.0, reduction="reply_sum")(Outputs(logp=lp), reply_batch).terms["policy"]
        (actual,) = torch.autograd.grad(loss, lp)
        assert loss.item() == pytest.approx(dual.sum().item())
        torch.testing.assert_close(actual, expected * ratios)


def test_cispo():
    value, grad = offpolicy("cispo")
    assert value == pytest.approx(-0.256716, abs=1e-6)
    assert grad == pytest.approx([-0.25, -1 / 6, 0.5 / 6, 1 / 6, 1.3 / 6, 0.15])


def test_cispo_of_verl_has_a_lower_clip():
    _, grad = offpolicy("cispo", cispo_floor=0.8, cispo_cap=1.2)
    assert grad == pytest.approx([-1.2 / 6, -1 / 6, 0.8 / 6, 1 / 6, 1.2 / 6, 0.15])


def test_gspo():
    value, grad = offpolicy("gspo", clip_low=0.2, clip_high=0.2)
    assert value == pytest.approx(-0.162721, abs=1e-6)
    assert grad == pytest.approx([0, 0] + [0.10932] * 4, abs=1e-6)
    value, grad = offpolicy("gspo")
    assert value == pytest.approx(-0.00035, abs=1e-8)
    assert grad == [0.0] * 6


def test_luspo():
    value, grad = offpolicy("luspo")
    assert value == pytest.approx(0.549117, abs=1e-6)
    assert grad[2:] == pytest.approx([0.437279] * 4, abs=1e-6)


def test_rloo_ratio_is_the_product_over_tokens():
    value, grad = offpolicy("rloo")
    product = 0.5 * 1.0 * 1.3 * 0.9
    assert value == pytest.approx((-1.2 + max(product, 0.8)) / 2)
    assert grad == [0.0] * 6


@pytest.mark.parametrize(("gradient", "expected"), [("plain", 0.125), ("corrected", log(2) / 4)])
def test_kl_alone(gradient, expected):
    ref = [[log(0.25), log(0.5)], [log(0.5)] * 4]
    value, grad = run(policy_loss("grpo", beta=1.0, kl_gradient=gradient), advantage=[0.0, 0.0], ref_logp=ref)
    assert value == pytest.approx(0.048287, abs=1e-6)
    assert grad == pytest.approx([expected, 0, 0, 0, 0, 0])


BEHAVIOUR = [[log(0.5), log(0.4)], [log(0.5), log(0.125), log(0.5), log(0.5)]]


def mismatch(**fields):
    return run(policy_loss("dapo", old="column", **fields), old_logp=OLD_LOGP, behaviour_logp=BEHAVIOUR)


def test_sampler_weights():
    value, grad = mismatch(mismatch="sequence")
    assert value == pytest.approx(-0.416667, abs=1e-6)
    assert grad == pytest.approx([-1.25 / 6] * 2 + [0] * 4)
    _, grad = mismatch(mismatch="sequence", mismatch_action="truncate")
    assert grad == pytest.approx([-1.25 / 6] * 2 + [3 / 6] * 4)
    _, grad = mismatch(mismatch="token", mismatch_action="truncate")
    assert grad == pytest.approx([-1 / 6, -1.25 / 6, 1 / 6, 3 / 6, 1 / 6, 1 / 6])
    _, grad = mismatch(mismatch="token")
    assert grad == pytest.approx([-1 / 6, -1.25 / 6, 1 / 6, 0, 1 / 6, 1 / 6])
    _, grad = mismatch(mismatch="geometric", mismatch_low=0.8, mismatch_high=1.2)
    assert grad == pytest.approx([-1 / 6, -1 / 6, 0, 0, 0, 0])


def test_an_injected_reply_with_its_own_old_logp_has_weight_one():
    loss = policy_loss("grpo", old="column", mismatch="sequence", injected=True)
    _, grad = run(loss, old_logp=OLD_LOGP, behaviour_logp=[BEHAVIOUR[1][:2], OLD_LOGP[1]], injected=[0.0, 1.0])
    assert grad == pytest.approx([-0.0, -0.0] + [0.125] * 4)


def test_off_policy_replies_are_dropped_only_when_negative():
    logp = [[log(0.1)] * 2, [log(0.1)] * 4]
    _, grad = run(policy_loss("cispo", old="column", off_policy_max=0.5), logp=logp, old_logp=OLD_LOGP)
    assert grad == pytest.approx([-0.2 / 6] * 2 + [0] * 4)
    _, grad = run(policy_loss("cispo", old="column", off_policy_max=2.0), logp=logp, old_logp=OLD_LOGP)
    assert grad == pytest.approx([-0.2 / 6] * 2 + [0.2 / 6] * 4)


def test_truncated_replies_have_no_gradient_but_count_as_replies():
    value, grad = run(policy_loss("grpo", mask_truncated=True), truncated=[0.0, 1.0])
    assert value == pytest.approx(-0.5)
    assert grad == pytest.approx([-0.25] * 2 + [0] * 4)
    value, grad = run(policy_loss("dapo", mask_truncated=True), truncated=[0.0, 1.0])
    assert value == pytest.approx(-1.0)


def test_the_entropy_bonus_has_its_own_count():
    entropy = torch.tensor([1.0, 3, 2, 2, 2, 2], dtype=torch.float64, requires_grad=True)
    reply_batch = batch([2, 4], advantage=[0.0, 0.0])
    value = total(policy_loss("dr_grpo", entropy=0.3), [(reply_batch, Outputs(logp=flat(OLD_LOGP), entropy=entropy))])
    value.backward()
    assert value.item() == pytest.approx(-0.3 * 2)
    assert entropy.grad is not None
    assert entropy.grad.tolist() == pytest.approx([-0.3 / 6] * 6)


def test_length_weights_of_an_injected_reply():
    reply_batch = batch([100] * 4 + [20], advantage=[-0.5] * 4 + [0.5], injected=[0.0] * 4 + [1.0])
    outputs = Outputs(logp=torch.zeros(420, dtype=torch.float64))
    for loss, expected in (("dapo", 20 / 420), ("grpo", 0.2)):
        injected_tokens, all_tokens = policy_loss(loss, injected=True)(outputs, reply_batch).metrics[
            "policy/injected_fraction"
        ]
        assert float(injected_tokens) / float(all_tokens) == pytest.approx(expected)


def test_metrics_exclude_injected_and_zero_gradient_replies():
    logp = [[log(2.0)] * 2, [0.0] * 4, [0.0]]
    reply_batch = batch(
        [2, 4, 1], advantage=[1.0, 2.0, 0.0], old_logp=[[0.0] * 2, [0.0] * 4, [9.0]], injected=[0.0, 1.0, 0.0]
    )
    metrics = policy_loss("grpo", old="column", injected=True)(Outputs(logp=flat(logp)), reply_batch).metrics
    assert [float(v) for v in metrics["policy/ratio"]] == pytest.approx([4.0, 2.0])
    assert [float(v) for v in metrics["policy/clip_high"]] == [2.0, 2.0]


def test_zero_gradient_replies():
    reply_batch = batch([2, 4, 1], advantage=[0.0, 1.0, 2.0], mask=[[1.0, 1.0], [1.0] * 4, [0.0]])
    assert policy_loss("grpo").zero_gradient_mask(reply_batch).tolist() == [True, False, True]
    assert policy_loss("grpo", entropy=0.1).zero_gradient_mask(reply_batch).tolist() == [False, False, True]
    assert policy_loss("grpo", beta=0.1).zero_gradient_mask(reply_batch).tolist() == [False, False, True]
    per_token = batch([2, 2], advantage=[[0.0, 1.0], [0.0, 0.0]])
    assert policy_loss("grpo").zero_gradient_mask(per_token).tolist() == [False, True]


@pytest.mark.parametrize("loss", FORMS)
def test_zero_gradient_replies_can_be_skipped(loss):
    """The gradient does not depend on the log-probs of replies with zero gradient."""
    reply_batch = batch([2, 4], advantage=[1.0, 0.0], old_logp=MOVED_LOGP)
    grads = []
    for filler in (log(0.5), 0.0, -1e4, 1e4, math.nan):
        lp = flat([OLD_LOGP[0], [filler] * 4])
        total(policy_loss(loss, old="column"), [(reply_batch, Outputs(logp=lp))]).backward()
        assert lp.grad is not None
        grads.append(lp.grad)
        assert lp.grad[2:].tolist() == [0.0] * 4
    for grad in grads[1:]:
        torch.testing.assert_close(grad, grads[0])


@pytest.mark.parametrize("loss", FORMS)
def test_masked_tokens_can_have_any_value(loss):
    reply_batch = batch(
        [2, 4],
        advantage=[1.0, -1.0],
        old_logp=[MOVED_LOGP[0], [*MOVED_LOGP[1][:3], math.nan]],
        ref_logp=[OLD_LOGP[0], [*OLD_LOGP[1][:3], -math.inf]],
        mask=[[1.0, 1.0], [1.0, 1.0, 1.0, 0.0]],
    )
    lp = flat([OLD_LOGP[0], [*OLD_LOGP[1][:3], -math.inf]])
    value = total(policy_loss(loss, old="column", beta=0.1), [(reply_batch, Outputs(logp=lp))])
    value.backward()
    assert value.isfinite()
    assert lp.grad is not None
    assert lp.grad.isfinite().all()
    assert lp.grad[5] == 0


@pytest.mark.parametrize("loss", FORMS)
def test_eight_by_one_is_two_by_four(loss):
    """Losses and gradients do not depend on micro-batches, with entropy bonus and ragged lengths."""
    generator = torch.Generator().manual_seed(1)
    lengths = [3, 1, 7, 2, 5, 4, 1, 6]

    def random_columns(scale: float) -> list[list[float]]:
        return [(-1 + scale * torch.randn(n, generator=generator, dtype=torch.float64)).tolist() for n in lengths]

    logp, entropy = flat(random_columns(0.3)), flat(random_columns(0.3))
    full_batch = batch(
        lengths,
        advantage=torch.randn(8, generator=generator).tolist(),
        old_logp=random_columns(0.3),
        ref_logp=random_columns(0.3),
        behaviour_logp=random_columns(0.3),
        truncated=[0.0, 0, 1, 0, 0, 0, 0, 0],
    )
    objective = policy_loss(loss, old="column", beta=0.1, entropy=0.05, mismatch="token", mask_truncated=True)
    results = []
    for micro_batches in (
        [[0, 1, 2, 3, 4, 5, 6, 7]],
        [[i] for i in range(8)],
        [[0, 1, 2, 3], [4, 5, 6, 7]],
        [[5, 2], [7, 0, 1, 3, 4, 6], []],
    ):
        parts_with_outputs = []
        for replies in micro_batches:
            micro, tokens = select(full_batch, replies)
            parts_with_outputs.append((micro, Outputs(logp=logp[tokens], entropy=entropy[tokens])))
        value = total(objective, parts_with_outputs)
        results.append((value, *torch.autograd.grad(value, [logp, entropy])))
    for value, *grads in results[1:]:
        torch.testing.assert_close(value, results[0][0])
        torch.testing.assert_close(tuple(grads), results[0][1:])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss_type": "grpo", "max_tokens": 5}, "max_tokens"),
        ({"loss_type": "cispo", "cispo_cap": 0.2}, "at least 1"),
        ({"loss_type": "cispo", "clip_high": 0.2}, "no effect"),
        ({"loss_type": "grpo", "cispo_cap": 4.0}, "no effect"),
        ({"loss_type": "grpo", "delta": 1.1}, "exceed"),
        ({"loss_type": "grpo", "beta": 0.1, "kl_estimator": "k1", "kl_gradient": "plain"}, "k1"),
        ({"loss_type": "grpo", "mismatch": "token"}, "old=column"),
        ({"loss_type": "grpo", "off_policy_max": 0.1}, "old=column"),
        ({"loss_type": "grpo", "old": "column", "mismatch": "geometric"}, "around 1"),
        ({"loss_type": "grpo", "old": "column", "mismatch": "token", "mismatch_low": 4.0}, "below"),
    ],
)
def test_invalid_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        PolicyLoss(**fields)


def test_a_loss_type_is_a_combination_of_options():
    """Any published loss can be configured from another one."""
    assert PolicyLoss(loss_type="grpo", ratio="sequence_mean", clip_low=3e-4, clip_high=4e-4).form == FORMS["gspo"]
    assert PolicyLoss(loss_type="dapo", clip_high=0.2).form.reduction == "rollout_tokens"
    assert PolicyLoss(loss_type="dapo").denominator_scope == "rollout"
    assert PolicyLoss(loss_type="bnpo").denominator_scope == "step"
    assert PolicyLoss().on_policy_only
    assert not PolicyLoss(old="column").on_policy_only


def test_a_constant_denominator_needs_max_tokens() -> None:
    with pytest.raises(ValueError, match="divides by max_tokens, found none"):
        PolicyLoss(loss_type="dr_grpo").counts(batch([2], advantage=[1.0]))
