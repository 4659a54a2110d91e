"""`Context.loss` is the loss that an optimizer step on the same samples reports, without its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from forked import on_two_ranks
from gradients import ragged_groups
from towers_task import CLASSES, MODALITIES, Objects, write
from whole_steps import Coupled, load, step

from mmpost.config.settings import ModelSettings
from mmpost.core import distributed
from mmpost.models.embedding.model import open_model
from mmpost.objectives.classify import Classify
from mmpost.objectives.contrastive import Contrastive
from mmpost.objectives.likelihood import Likelihood
from mmpost.rollout.local import LocalRollout
from mmpost.training.context import TrainingContext
from mmpost.types import Objective, Sample

OBJECTIVES = [Coupled(), Likelihood()]


def loss(model: Any, objective: Objective, samples: Sequence[Sample]) -> float:
    """Of this rank's part of the samples."""
    context = TrainingContext(model, LocalRollout(model), 0)
    return context.loss(list(samples)[distributed.rank() :: distributed.world()], objective)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["batch", "reply"])
@pytest.mark.parametrize("micro", [0, 2])
def test_it_is_the_loss_of_a_step(objective: Objective, micro: int, tiny_folder: str) -> None:
    model = load(tiny_folder, micro)
    _, metrics, _ = step(load(tiny_folder), objective)
    assert loss(model, objective, ragged_groups(model)) == pytest.approx(metrics["loss"], rel=1e-12)
    assert all(p.grad is None for p in model.module.parameters())
    assert abs(metrics["loss"]) > 1e-3


def test_two_ranks_have_the_loss_of_one(tiny_folder: str, tmp_path: Path) -> None:
    def all_losses() -> list[float]:
        model = load(tiny_folder, 2)
        groups = ragged_groups(model)
        few = [loss(model, objective, groups[:1]) for objective in OBJECTIVES]  # none on the second rank
        return few + [loss(model, objective, groups) for objective in OBJECTIVES]

    expected = all_losses()
    assert on_two_ranks(all_losses, tmp_path) == pytest.approx(expected, rel=1e-12)


def test_losses_of_embedding_models_have_no_dropout(tmp_path: Path) -> None:
    folder = write(tmp_path / "towers", dropout=0.5)
    model = open_model(folder, ModelSettings(name=folder, device="cpu"))
    model.add_head(CLASSES, MODALITIES, "average")
    samples = [Objects(16)[i] for i in range(16)]
    for objective in (Contrastive(modalities=MODALITIES), Classify(modalities=MODALITIES)):
        first = loss(model, objective, samples)
        assert loss(model, objective, samples) == first > 0.1
        assert loss(model, objective, []) == 0.0
