"""Skipping replies without gradient changes no result: gradients, moments, weights, metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import on_two_ranks
from gradients import GradientAccumulator, ragged_groups, relative
from torch import Tensor

from mmpost.config.settings import ComputeSettings, ModelSettings, OptimSettings
from mmpost.core import distributed
from mmpost.models.chat.model import ChatModel
from mmpost.objectives.policy import FORMS, PolicyLoss
from mmpost.rollout.local import LocalRollout
from mmpost.training import trainer
from mmpost.training.batches import RolloutBatcher, active_reply_mask
from mmpost.training.context import TrainingContext
from mmpost.training.trainer import LocalEngine, StopSignal
from mmpost.transforms.logprobs import OldLogprobs
from mmpost.types import Context, FunctionTransform, Part, Sample, Stage
from mmpost.updates.adamw import AdamWUpdate


def load(folder: str) -> ChatModel:
    return ChatModel.load(
        folder, ModelSettings(name=folder, device="cpu"), ComputeSettings(max_replies_per_microbatch=1)
    )


@pytest.fixture(scope="module")
def model(tiny_folder: str) -> ChatModel:
    return load(tiny_folder)


def objective(name: str) -> PolicyLoss:
    options: dict[str, Any] = {"mismatch": "token", "injected": True} if name in ("grpo", "vespo") else {}
    return PolicyLoss(loss_type=name, old="column", max_tokens=10 if name == "dr_grpo" else None, **options)  # type: ignore[arg-type]


def flat_groups(model: ChatModel, flat: tuple[int, ...] = (1, 2), groups: int = 4) -> list[Sample]:
    """Ragged groups of 1 to 3 replies; those at `flat` have zero advantage."""
    samples = ragged_groups(model, groups)
    return [with_columns(s, advantage=0.0) if i in flat else s for i, s in enumerate(samples)]


def with_columns(sample: Sample, drop: str = "", **columns: Any) -> Sample:
    replies = (
        replace(r, columns={**{k: v for k, v in r.columns.items() if k != drop}, **columns}) for r in sample.replies
    )
    return replace(sample, replies=tuple(replies))


def gradient(model: ChatModel, name: str, samples: list[Sample], reuse: bool) -> tuple[Tensor, dict[str, float]]:
    """Gradient and metrics of one step on the samples of this rank."""
    context, engine, loss = (
        TrainingContext(model, LocalRollout(model), 0, reuse=reuse),
        GradientAccumulator(model.module),
        objective(name),
    )
    local_samples = samples[distributed.rank() :: distributed.world()]
    (counts,) = trainer.denominators(loss, model, [local_samples])
    trainer.optimizer_step(context, engine, loss, local_samples, counts)
    return engine.take(), {k: v for k, v in context.pop_metrics().items() if not k.startswith("time/")}


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Numbers of computed replies: "train" with gradient, "pass" without."""
    count: Counter[str] = Counter()
    call = ChatModel.__call__

    def counting(self: ChatModel, batch: Any, wants: Any) -> Any:
        count["train" if torch.is_grad_enabled() else "pass"] += batch.replies
        return call(self, batch, wants)

    monkeypatch.setattr(ChatModel, "__call__", counting)
    return count


@pytest.mark.parametrize("name", FORMS)
def test_skipping_zero_gradient_replies_changes_no_result(name: str, model: ChatModel, forwards: Counter[str]) -> None:
    samples = flat_groups(model)
    skipped, metrics = gradient(model, name, samples, reuse=True)
    assert forwards["train"] == 2  # groups of 1, 2, 3 and 1; those of 2 and 3 have zero advantage
    plain, plain_metrics = gradient(model, name, samples, reuse=False)
    assert forwards["train"] == 2 + 7
    assert plain.norm() > 1e-4
    torch.testing.assert_close(skipped, plain, rtol=0, atol=0)
    assert metrics == plain_metrics


def test_a_kl_penalty_or_entropy_bonus_keeps_every_reply_active(model: ChatModel) -> None:
    samples, context = flat_groups(model), TrainingContext(model, LocalRollout(model), 0)
    for loss in (PolicyLoss(beta=0.1), PolicyLoss(entropy=0.1)):
        assert all(all(row) for row in active_reply_mask(context, loss, samples))
    assert active_reply_mask(context, PolicyLoss(), samples) == [[True], [False] * 2, [False] * 3, [True]]


def test_two_ranks_of_which_one_has_no_active_reply(model: ChatModel, tmp_path: Path) -> None:
    samples = flat_groups(model, flat=(1, 3))
    two_ranks = on_two_ranks(lambda: {name: gradient(model, name, samples, reuse=True)[0] for name in FORMS}, tmp_path)
    for name in FORMS:
        plain, _ = gradient(model, name, samples, reuse=False)
        assert relative(two_ranks[name], plain) < 1e-6, name


def text_only(sample: Sample) -> Sample:
    return replace(sample, prompt=tuple(p for p in sample.prompt if p.modality == "text") or (Part("text", "?"),))


@pytest.mark.parametrize("case", ["all idle", "pictures idle", "text idle"])
def test_moments_and_weight_decay_apply_if_no_reply_is_active(case: str, tiny_folder: str) -> None:
    """A zero gradient updates weights, a missing one does not; also if only inactive replies have images."""
    weights = []
    for reuse in (True, False):
        model = load(tiny_folder)
        context, loss = TrainingContext(model, LocalRollout(model), 0, reuse=reuse), PolicyLoss()
        update = AdamWUpdate(OptimSettings(lr=1e-3, weight_decay=0.1))
        update.start(model.module, model.parameter_groups(), 3)
        engine = LocalEngine(model.module, update)
        for step in range(2):
            samples = flat_groups(model, flat=() if step == 0 else (0, 1, 2, 3))
            if step and case == "pictures idle":
                samples[0] = with_columns(text_only(samples[0]), advantage=1.0)
            if step and case == "text idle":
                samples[1] = text_only(samples[1])
                samples[0] = with_columns(samples[0], advantage=1.0)
            (counts,) = trainer.denominators(loss, model, [samples])
            step_metrics, _ = trainer.optimizer_step(context, engine, loss, samples, counts)
        assert (step_metrics["grad_norm"] == 0) == (case == "all idle")
        weights.append({k: p.detach().clone() for k, p in model.module.named_parameters()})
    assert weights[0].keys() == weights[1].keys()
    for name, p in weights[0].items():
        assert torch.equal(p, weights[1][name]), name


def updates(folder: str, reuse: bool, old: bool, epochs: int, minibatches: int) -> tuple[list[Tensor], list[Sample]]:
    """Weights after all updates on one rollout batch, and the samples of the last update."""
    model = load(folder)
    run_context = TrainingContext(model, LocalRollout(model), 0, reuse=reuse)
    replies_of = {s.uid: with_columns(s, drop="old_logp") for s in flat_groups(model, flat=(1,))}

    def replies(samples: list[Sample], context: Context) -> list[Sample]:
        return [replies_of[s.uid] for s in samples]

    write_replies = FunctionTransform(replies)
    transforms = (write_replies, OldLogprobs()) if old else (write_replies,)
    without_replies = [replace(s, replies=()) for s in replies_of.values()]
    stage = Stage("s", without_replies, PolicyLoss(old="column"), len(without_replies), transforms, epochs, minibatches)
    update = AdamWUpdate(OptimSettings(lr=1e-2))
    update.start(model.module, model.parameter_groups(), stage.num_iterations * stage.minibatches)
    last: list[Sample] = []

    def keep_samples(_: Any, samples: Any) -> None:
        last[:] = samples

    until = trainer.StopCondition(stage.num_iterations * stage.minibatches, StopSignal())
    trainer.train_stage(
        run_context,
        RolloutBatcher(stage, run_context),
        LocalEngine(model.module, update),
        trainer.StageProgress(),
        until,
        keep_samples,
    )
    return [p.detach() for p in model.module.parameters()], last


@pytest.mark.parametrize(
    ("epochs", "minibatches", "passes"),
    [
        (1, 1, 0),  # on-policy: its own log-probs are the old ones
        (2, 1, 0),  # the first update provides them for the second
        (2, 2, 4),  # those of the second minibatch are needed before the first update: groups of 3 and 1
    ],
)
def test_old_log_probs_need_no_extra_pass_on_policy(
    epochs: int, minibatches: int, passes: int, tiny_folder: str, forwards: Counter[str]
) -> None:
    weights, samples = updates(tiny_folder, True, False, epochs, minibatches)
    assert forwards["pass"] <= passes
    assert forwards["train"] == 5 * epochs  # 7 replies, 2 of them inactive
    forwards.clear()
    plain, before = updates(tiny_folder, False, True, epochs, minibatches)
    assert forwards["pass"] == 7
    for a, b in zip(weights, plain, strict=True):
        assert torch.equal(a, b)
    old = {(s.uid, i): r.columns["old_logp"] for s in before for i, r in enumerate(s.replies)}
    with_old_logp = [(s.uid, i, r) for s in samples for i, r in enumerate(s.replies) if "old_logp" in r.columns]
    assert with_old_logp
    assert all(r.columns["old_logp"] == old[uid, i] for uid, i, r in with_old_logp)
