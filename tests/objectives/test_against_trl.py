"""Value and gradient of every policy loss against the trainers of trl."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mmpost.objectives.policy import PolicyLoss
from mmpost.types import Batch, Outputs
from tests.objectives import oracle
from tests.objectives.ragged import batch, select, total

pytest.importorskip("trl", reason="the numerical reference")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

LENGTHS = [3, 7, 1, 5, 2, 6, 4, 4]
TOLERANCE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-7}


@pytest.fixture(scope="module")
def trl_classes() -> dict[str, type]:
    from trl.trainer.grpo_trainer import GRPOTrainer
    from trl.trainer.rloo_trainer import RLOOTrainer

    return {"grpo": GRPOTrainer, "rloo": RLOOTrainer}


def policy_batch(rollout: dict[str, Any], advantage: Tensor) -> Batch:
    def column(name: str) -> list[list[float]]:
        return [row[m].tolist() for row, m in zip(rollout[name], rollout["mask"], strict=True)]

    return batch(
        [int(m.sum()) for m in rollout["mask"]],
        advantage=advantage.tolist(),
        old_logp=column("old"),
        ref_logp=column("ref"),
        behaviour_logp=column("behaviour"),
        truncated=[float(t) for t in rollout["truncated"]],
    )


def compare(
    cls: type, objective: PolicyLoss, lengths: list[int], micro: int, seed: int, **settings: Any
) -> tuple[list[Tensor], list[Tensor]]:
    """(loss, gradients) of one optimizer step in micro-batches of `micro`: ours, then that of trl."""
    rows = len(lengths)
    generator = torch.Generator().manual_seed(seed)
    rollout = oracle.rollout(
        lengths, torch.rand(rows, generator=generator, dtype=torch.float64).round(decimals=1), seed
    )
    accumulate = rows // micro
    settings = {"steps_per_generation": accumulate, **settings}
    trl_trainer = oracle.trainer(cls, rollout, group=4, accumulate=accumulate, **settings)
    if objective.old == "column" and "grpo" in cls.__name__.lower():
        trl_trainer.num_iterations = 2  # above 1, it uses the old log-probabilities
    expected, advantage = oracle.losses(trl_trainer, rows, micro)
    if cls.__name__ == "RLOOTrainer":
        expected = expected / accumulate  # done by its caller
    full_batch, flat_logp, flat_entropy = (
        policy_batch(rollout, advantage),
        rollout["logp"][rollout["mask"]],
        rollout["entropy"][rollout["mask"]],
    )
    parts = []
    for start in range(0, rows, micro):
        part, tokens = select(full_batch, range(start, start + micro))
        parts.append((part, Outputs(logp=flat_logp[tokens], entropy=flat_entropy[tokens])))
    actual = total(objective, parts)
    inputs = [rollout["logp"], rollout["entropy"]]
    expected_grad = torch.autograd.grad(expected, inputs, materialize_grads=True, allow_unused=True)
    actual_grad = torch.autograd.grad(actual, inputs, materialize_grads=True, allow_unused=True)
    return [actual, *actual_grad], [expected, *expected_grad]


SEQUENCE = {"importance_sampling_level": "sequence"}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    # name: (our fields, their settings, whether their normaliser allows several micro-batches)
    "grpo": ({}, {}, True),
    "bnpo": ({"loss_type": "bnpo"}, {"loss_type": "bnpo"}, False),
    "dr_grpo": ({"loss_type": "dr_grpo", "max_tokens": 10}, {"loss_type": "dr_grpo"}, True),
    "dapo": ({"loss_type": "dapo"}, {"loss_type": "dapo", "epsilon_high": 0.28}, True),
    "gspo": ({"loss_type": "gspo"}, {**SEQUENCE, "epsilon_low": 3e-4, "epsilon_high": 4e-4}, True),
    "gspo wide": ({"loss_type": "gspo", "clip_low": 0.2, "clip_high": 0.2}, SEQUENCE, True),
    "luspo": ({"loss_type": "luspo"}, {**SEQUENCE, "loss_type": "luspo"}, True),
    "luspo token": ({"loss_type": "luspo", "ratio": "token"}, {"loss_type": "luspo"}, True),
    "cispo": ({"loss_type": "cispo"}, {"loss_type": "cispo", "epsilon_high": 5.0}, True),
    "cispo tight": ({"loss_type": "cispo", "cispo_cap": 1.1}, {"loss_type": "cispo", "epsilon_high": 1.1}, True),
    "sapo": ({"loss_type": "sapo"}, {"loss_type": "sapo"}, True),
    "sapo sequence": ({"loss_type": "sapo", "ratio": "sequence_mean"}, {**SEQUENCE, "loss_type": "sapo"}, True),
    "vespo": ({"loss_type": "vespo"}, {"loss_type": "vespo"}, True),
    "delta": ({"delta": 1.4}, {"delta": 1.4}, True),
    "clip range": ({"clip_low": 0.1, "clip_high": 0.4}, {"epsilon_low": 0.1, "epsilon_high": 0.4}, True),
    "kl": ({"beta": 0.3}, {"beta": 0.3}, True),
    "kl dapo": ({"loss_type": "dapo", "clip_high": 0.2, "beta": 0.3}, {"loss_type": "dapo", "beta": 0.3}, True),
    "kl plain": ({"beta": 0.3, "kl_gradient": "plain"}, {"beta": 0.3, "use_bias_correction_kl": False}, True),
    "kl sequence": (
        {"loss_type": "gspo", "clip_low": 0.2, "clip_high": 0.2, "beta": 0.3},
        {**SEQUENCE, "beta": 0.3},
        True,
    ),
    "entropy": ({"entropy": 0.2}, {"entropy_coef": 0.2}, False),
    "entropy dr_grpo": (
        {"loss_type": "dr_grpo", "max_tokens": 10, "entropy": 0.2},
        {"loss_type": "dr_grpo", "entropy_coef": 0.2},
        False,
    ),
    "truncated": ({"mask_truncated": True}, {"mask_truncated_completions": True}, True),
    "truncated dapo": (
        {"loss_type": "dapo", "mask_truncated": True, "clip_high": 0.2},
        {"loss_type": "dapo", "mask_truncated_completions": True},
        True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("old", ["current", "column"])
def test_loss(trl_classes, name, old, seed):
    fields, settings, splits = CASES[name]
    lengths = torch.randint(1, 12, (8,), generator=torch.Generator().manual_seed(seed)).tolist()
    for micro in (8, 4, 2) if splits else (8,):
        ours, theirs = compare(trl_classes["grpo"], PolicyLoss(old=old, **fields), lengths, micro, seed, **settings)
        torch.testing.assert_close(ours, theirs, **TOLERANCE)
        assert ours[1].abs().sum() > 0


@pytest.mark.parametrize("seed", range(3))
def test_off_policy_mask(trl_classes, seed):
    """trl uses the log-probs of the sampler; ours does where they are read at all."""
    objective = PolicyLoss(old="column", off_policy_max=0.05, mismatch="token", mismatch_high=1e9)
    settings = {"off_policy_mask_threshold": 0.05, **sampler("token_truncate", high=1e9)}
    ours, theirs = compare(trl_classes["grpo"], objective, LENGTHS, 4, seed, **settings)
    torch.testing.assert_close(ours, theirs, **TOLERANCE)
    assert ours[1].abs().sum() > 0


def sampler(mode: str, low: float | None = None, high: float | None = 3.0) -> dict[str, Any]:
    return {
        "use_vllm": True,
        "vllm_importance_sampling_correction": True,
        "vllm_importance_sampling_mode": mode,
        "vllm_importance_sampling_clip_min": low,
        "vllm_importance_sampling_clip_max": high,
    }


@pytest.mark.parametrize("loss", ["grpo", "dapo", "vespo"])
@pytest.mark.parametrize("action", ["mask", "truncate"])
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("bounds", [(0.0, 3.0), (0.7, 1.3)])
def test_sampler_mismatch(trl_classes, loss, level, action, bounds):
    low, high = bounds
    objective = PolicyLoss(
        loss_type=loss,
        old="column",
        mismatch=level,
        mismatch_action=action,
        mismatch_low=low,
        mismatch_high=high,
        clip_high=0.2 if loss == "dapo" else None,
    )
    settings = {"loss_type": loss, **sampler(f"{level}_{action}", low or None, high)}
    for micro in (8, 2):
        ours, theirs = compare(trl_classes["grpo"], objective, LENGTHS, micro, 3, **settings)
        torch.testing.assert_close(ours, theirs, **TOLERANCE)
        assert ours[1].abs().sum() > 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("truncated", [False, True])
def test_rloo(trl_classes, seed, truncated):
    """With truncated replies only gradients agree: trl adds the constant -A for a reply without trained tokens."""
    objective = PolicyLoss(loss_type="rloo", old="column", mask_truncated=truncated)
    settings = {"mask_truncated_completions": truncated}
    for micro in (8, 2):
        ours, theirs = compare(trl_classes["rloo"], objective, LENGTHS, micro, seed, **settings)
        if truncated:
            ours, theirs = ours[1:], theirs[1:]
        torch.testing.assert_close(ours, theirs, **TOLERANCE)
        assert ours[-2].abs().sum() > 0


@pytest.mark.parametrize("loss", ["dapo", "cispo", "vespo"])
def test_rollout_span(trl_classes, loss):
    """Two updates on one rollout batch: all tokens of both have the same weight."""
    rollout = oracle.rollout(LENGTHS, torch.arange(8, dtype=torch.float64) % 3)
    trl_trainer = oracle.trainer(
        trl_classes["grpo"], rollout, group=4, accumulate=2, loss_type=loss, steps_per_generation=4, epsilon_high=5.0
    )
    inputs = trl_trainer._generate_and_score_completions([{"prompt": ""}] * 8)
    objective = PolicyLoss(loss_type=loss, old="column", clip_high=5.0 if loss == "dapo" else None)
    full_batch, logp = policy_batch(rollout, inputs["advantages"]), rollout["logp"][rollout["mask"]]
    count = objective.counts(full_batch)["policy"] / 2
    for update in ([0, 1, 2, 3], [4, 5, 6, 7]):
        expected, actual = [], []
        for rows in (update[:2], update[2:]):
            micro_inputs = {k: v[rows] if v.dim() else v for k, v in inputs.items() if isinstance(v, Tensor)}
            expected.append(trl_trainer._compute_loss(trl_trainer.current, micro_inputs))
            part, tokens = select(full_batch, rows)
            actual.append(objective(Outputs(logp=logp[tokens]), part).terms["policy"] / count)
        torch.testing.assert_close(torch.stack(actual).sum(), torch.stack(expected).sum(), rtol=1e-5, atol=1e-7)
    assert objective.denominator_scope == "rollout"
