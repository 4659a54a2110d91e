"""An objective over the full batch of a step, on log-probs and a model scalar; one step with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from gradients import GradientAccumulator, ragged_groups
from torch import Tensor

from mmpost.config.settings import ComputeSettings, ModelSettings
from mmpost.core import distributed
from mmpost.models.chat.model import ChatModel
from mmpost.rollout.local import LocalRollout
from mmpost.training import trainer
from mmpost.training.context import TrainingContext
from mmpost.types import Batch, Loss, Objective, Outputs, Sample


class Coupled(Objective):
    """Compares each reply with all others, with a learnable scale and a detached batch mean like the z of KTO."""

    unit: ClassVar[Literal["reply", "group", "batch"]] = "batch"
    old: bool = False
    """Also reads old log-probs."""

    @property
    def required_columns(self) -> frozenset[str]:
        return frozenset({"mask", "advantage"}) | self.policy_logprob_columns

    @property
    def policy_logprob_columns(self) -> frozenset[str]:
        return frozenset({"old_logp"}) if self.old else frozenset()

    def counts(self, batch: Batch) -> Mapping[str, float]:
        # Not additive over micro-batches: pairs of all replies of the step.
        batch.tok("mask")
        return {"pairs": float(batch.replies * (batch.replies - 1)), "z": float(batch.replies)}

    def __call__(self, outputs: Outputs, batch: Batch) -> Loss:
        assert outputs.logp is not None
        score = batch.sum(outputs.logp * batch.tok("mask")) * 0.1 + batch.reply("advantage")
        if self.old:
            score = score + batch.sum((outputs.logp - batch.tok("old_logp")) ** 2 + outputs.logp * 0.3)
        scale = outputs.aux["log_scale"].exp() if outputs.aux else score.new_ones(())
        gaps = torch.sigmoid(scale * (score[:, None] - score[None, :]))
        z = score.mean().detach().clamp(min=0)
        return Loss(
            {"pairs": gaps.square().sum(), "z": torch.sigmoid(score - z).sum()},
            {"gap": (gaps.square().sum().detach(), 1.0), "score": (score.sum().detach(), float(batch.replies))},
        )


class Scaled(ChatModel):
    """Returns a learnable scalar, as embedding models do; records its log-probs."""

    computed: list[tuple[bool, Tensor]]

    def __call__(self, batch: Batch, wants: Collection[str], train: bool | None = None) -> Outputs:
        if not hasattr(self.module, "log_scale"):
            self.module.log_scale = torch.nn.Parameter(torch.tensor(0.5))
        outputs = super().__call__(batch, wants, train)
        self.computed = [*getattr(self, "computed", []), (torch.is_grad_enabled(), outputs.logp.detach().clone())]  # type: ignore[union-attr]
        return replace(outputs, aux={"log_scale": self.module.log_scale})


def load(folder: str, micro: int = 0, model_class: type[ChatModel] = Scaled, **compute: Any) -> ChatModel:
    """In float64, so that differences come from the method and not from kernels."""
    model = model_class.load(
        folder, ModelSettings(name=folder, device="cpu"), ComputeSettings(max_replies_per_microbatch=micro, **compute)
    )
    model.module.double()
    return model


def step(
    model: ChatModel, objective: Objective, samples: Sequence[Sample] | None = None, fresh: bool = False
) -> tuple[Tensor, dict[str, float], list[Sample]]:
    """Gradient, metrics and samples of one step on the samples of this rank."""
    context, engine = TrainingContext(model, LocalRollout(model), 0), GradientAccumulator(model.module)
    local_samples = list(samples or ragged_groups(model))[distributed.rank() :: distributed.world()]
    (counts,) = trainer.denominators(objective, model, [local_samples])
    _, remaining = trainer.optimizer_step(context, engine, objective, local_samples, counts, on_policy=fresh)
    metrics = {k: v for k, v in context.pop_metrics().items() if not k.startswith("time/")}
    return engine.take(), metrics, remaining
