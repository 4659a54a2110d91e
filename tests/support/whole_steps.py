"""An objective that sees a whole step, over log-probs and a scalar of the model; one step of it, however cut up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from gradients import Keep, ragged_groups
from torch import Tensor

from mmpost.config.settings import ComputeSettings, ModelSettings
from mmpost.core import distributed
from mmpost.models.chat.model import ChatModel
from mmpost.rollout.local import LocalRollout
from mmpost.training import trainer
from mmpost.training.context import TrainingContext
from mmpost.types import Batch, Loss, Objective, Outputs, Sample


class Coupled(Objective):
    """Each reply against all others, times a learnable scale; a detached mean over the batch, as KTO's z."""

    unit: ClassVar[Literal["reply", "group", "batch"]] = "batch"
    old: bool = False
    """Also reads remembered log-probs."""

    @property
    def required_columns(self) -> frozenset[str]:
        return frozenset({"mask", "advantage"}) | self.policy_logprob_columns

    @property
    def policy_logprob_columns(self) -> frozenset[str]:
        return frozenset({"old_logp"}) if self.old else frozenset()

    def counts(self, batch: Batch) -> Mapping[str, float]:
        # Not additive: pairs of replies of the whole step.
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
    """Hands out a learnable scalar, as embedding models do; keeps what it computed."""

    made: list[tuple[bool, Tensor]]

    def __call__(self, batch: Batch, wants: Collection[str], train: bool | None = None) -> Outputs:
        if not hasattr(self.module, "log_scale"):
            self.module.log_scale = torch.nn.Parameter(torch.tensor(0.5))
        outputs = super().__call__(batch, wants, train)
        self.made = [*getattr(self, "made", []), (torch.is_grad_enabled(), outputs.logp.detach().clone())]  # type: ignore[union-attr]
        return replace(outputs, aux={"log_scale": self.module.log_scale})


def load(folder: str, micro: int = 0, kind: type[ChatModel] = Scaled, **compute: Any) -> ChatModel:
    """In float64: what is left of a difference then is the method's, not that of the processor's kernels."""
    model = kind.load(
        folder, ModelSettings(name=folder, device="cpu"), ComputeSettings(max_replies_per_microbatch=micro, **compute)
    )
    model.module.double()
    return model


def step(
    model: ChatModel, objective: Objective, samples: Sequence[Sample] | None = None, fresh: bool = False
) -> tuple[Tensor, dict[str, float], list[Sample]]:
    """Gradient, numbers of the log, and samples of one step on this rank's share."""
    job, engine = TrainingContext(model, LocalRollout(model), 0), Keep(model.module)
    mine = list(samples or ragged_groups(model))[distributed.rank() :: distributed.world()]
    (counts,) = trainer.denominators(objective, model, [mine])
    _, left = trainer.optimizer_step(job, engine, objective, mine, counts, on_policy=fresh)
    numbers = {k: v for k, v in job.pop_metrics().items() if not k.startswith("time/")}
    return engine.take(), numbers, left
