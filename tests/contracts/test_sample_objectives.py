"""The contract of objectives on samples without replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mmpost.objectives.classify import Classify
from mmpost.objectives.contrastive import Contrastive
from mmpost.types import Batch, Objective, Outputs
from tests.contracts.test_objectives import SAMPLE_OBJECTIVES, RecordingColumns, objective_classes
from tests.objectives.ragged import total

SIZE, MODALITIES = 8, ("image", "text", "sound")

OBJECTIVES: list[Objective] = [
    Contrastive(modalities=MODALITIES),
    Contrastive(
        modalities=MODALITIES, half=False, reduce="sum", pairs="star", positives="label", weights={"image-text": 0.5}
    ),
    Contrastive(modalities=MODALITIES, loss="siglip", positives="label"),
    Classify(),
    Classify(smoothing=0.1),
]


def make_batch(names: frozenset[str], rows: Sequence[int] = range(SIZE), present: float = 0.7) -> Batch:
    generator = torch.Generator().manual_seed(0)
    index = torch.tensor(list(rows), dtype=torch.long)
    columns = {n: torch.randint(0, 3, (SIZE,), generator=generator).double()[index] for n in sorted(names)}
    has = {modality: (torch.rand(SIZE, generator=generator) < present)[index] for modality in MODALITIES}
    no_replies = torch.zeros(0, dtype=torch.long)
    return Batch(
        no_replies, no_replies, {}, sample_ids=index, sample_columns=RecordingColumns(columns), modality_mask=has
    )


def make_outputs() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    return {
        "embeddings": {modality: random(SIZE, 5) for modality in MODALITIES},
        "classes": random(SIZE, 3),
        "aux": {"log_scale": random(), "bias/image-text": random()},
    }


def flat(outputs: dict[str, Any]) -> list[Tensor]:
    return [*outputs["embeddings"].values(), outputs["classes"], *outputs["aux"].values()]


def run(
    objective: Objective, outputs: dict[str, Any], micro_batch_indices: Sequence[Sequence[int]], present: float = 0.7
) -> list[Tensor]:
    """The loss over the micro-batches `micro_batch_indices`, and its gradient with respect to each output."""
    micro_batches = []
    for rows in micro_batch_indices:
        index = torch.tensor(list(rows), dtype=torch.long)
        micro = Outputs(
            embeddings={k: v[index] for k, v in outputs["embeddings"].items()},
            classes=outputs["classes"][index],
            aux=outputs["aux"],
        )
        micro_batches.append((make_batch(objective.required_columns, rows, present), micro))
    value = total(objective, micro_batches)
    return [value, *torch.autograd.grad(value, flat(outputs), materialize_grads=True, allow_unused=True)]


ONE_BATCH = [list(range(SIZE))]
each_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)


def test_every_sample_objective_is_covered() -> None:
    assert {type(o).__name__ for o in OBJECTIVES} == SAMPLE_OBJECTIVES
    assert {c.__name__ for c in objective_classes()} >= SAMPLE_OBJECTIVES


@each_objective
def test_columns_read_are_columns_declared(objective: Objective) -> None:
    batch = make_batch(objective.required_columns)
    objective.counts(batch)
    outputs = make_outputs()
    objective(Outputs(**outputs), batch)
    assert isinstance(batch.sample_columns, RecordingColumns)
    assert batch.sample_columns.read == objective.required_columns


@each_objective
def test_counts_have_the_names_of_the_terms(objective: Objective) -> None:
    batch = make_batch(objective.required_columns)
    loss = objective(Outputs(**make_outputs()), batch)
    assert loss.terms.keys() == objective.counts(batch).keys()
    assert all(t.shape == () and t.requires_grad for t in loss.terms.values())
    for pair in loss.metrics.values():
        assert all(torch.as_tensor(v).shape == () and not torch.as_tensor(v).requires_grad for v in pair)


@each_objective
def test_sample_order_and_micro_batches_do_not_matter(objective: Objective) -> None:
    outputs = make_outputs()
    full_batch = run(objective, outputs, ONE_BATCH)
    assert float(full_batch[0].detach()) != 0
    torch.testing.assert_close(run(objective, outputs, [[6, 7, 2, 3, 0, 1, 4, 5]]), full_batch)
    if objective.unit != "batch":
        torch.testing.assert_close(run(objective, outputs, [[0, 1, 2], [], [3, 4, 5, 6, 7]]), full_batch)


@each_objective
def test_an_empty_loss_is_zero_with_a_finite_gradient(objective: Objective) -> None:
    if isinstance(objective, Contrastive):
        value, *grads = run(objective, make_outputs(), ONE_BATCH, present=0.0)
    else:
        value, *grads = run(objective, make_outputs(), [[]])
    assert value.requires_grad
    assert float(value.detach()) == 0
    assert all((g == 0).all() for g in grads)
