"""The gradient of one optimizer step on the tiny model, for any micro-batches and ranks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mmpost.config.settings import ComputeSettings, ModelSettings
from mmpost.core import distributed
from mmpost.data.worlds.digits.scenes import Scenes
from mmpost.models.chat.model import ChatModel
from mmpost.rollout.local import LocalRollout
from mmpost.training import trainer
from mmpost.training.context import TrainingContext
from mmpost.types import Objective, Reply, Sample

COLUMNS = ("old_logp", "ref_logp", "behaviour_logp")


class GradientAccumulator:
    """An engine that accumulates gradients without updating weights."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self) -> dict[str, float]:
        distributed.sum_gradients(p for p in self.module.parameters() if p.requires_grad)
        return {}

    def take(self) -> Tensor:
        """Return the gradient as one vector and clear it."""
        parameters = list(self.module.parameters())
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters])
        for p in parameters:
            p.grad = None
        return flat


def ragged_groups(model: ChatModel, groups: int = 8, seed: int = 0) -> list[Sample]:
    """Groups of 1 to 3 replies of 1 to 9 random tokens, with every column that a policy loss may read."""
    rng = torch.Generator().manual_seed(seed)

    def number(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=rng))

    samples = []
    for i, scene in enumerate(Scenes(n=groups, seed=5)):
        replies = []
        for _ in range(1 + i % 3):
            length = int(number(1, 10))
            ids = tuple(torch.randint(10, 500, (length,), generator=rng).tolist())
            logps = [-6.7 + number(-0.3, 0.3) for _ in ids]
            columns = {name: [v + number(-0.2, 0.2) for v in logps] for name in COLUMNS}
            numbers = {"advantage": number(-2, 2), "truncated": float(length > 7), "injected": float(len(replies) == 2)}
            replies.append(Reply((), "policy", ids, columns={**columns, **numbers, "temperature": 0.9}))
        samples.append(replace(scene, replies=tuple(replies)))
    return samples


@functools.cache
def _model(folder: str) -> ChatModel:
    """Cached, because nothing here changes its weights."""
    return ChatModel.load(folder, ModelSettings(name=folder, device="cpu"))


def gradient(
    folder: str,
    objective: Objective,
    samples: Sequence[Sample] | None = None,
    max_replies_per_microbatch: int = 0,
    updates: int = 1,
) -> tuple[Tensor, float]:
    """Gradient (summed over the updates of one rollout batch) and loss on the samples of this rank."""
    model = _model(folder)
    model.module.zero_grad()  # a test that expects an error in a step leaves its gradients
    model.compute = ComputeSettings(max_replies_per_microbatch=max_replies_per_microbatch)
    context = TrainingContext(model, LocalRollout(model), 0)
    local_samples = list(samples or ragged_groups(model))[distributed.rank() :: distributed.world()]
    engine = GradientAccumulator(model.module)
    minibatches = trainer.split_minibatches(local_samples, updates)
    total = torch.zeros(sum(p.numel() for p in model.module.parameters()))
    loss = 0.0
    for minibatch, counts in zip(minibatches, trainer.denominators(objective, model, minibatches), strict=True):
        trainer.optimizer_step(context, engine, objective, minibatch, counts)
        total += engine.take()
        loss += context.pop_metrics()["loss"]
    return total, loss


def relative(a: Tensor, b: Tensor) -> float:
    """Norm of the difference, divided by the norm of `b`."""
    return float((a - b).norm() / b.norm())
