"""What objectives on samples without replies owe the trainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mmpost.objectives.classify import Classify
from mmpost.objectives.contrastive import Contrastive
from mmpost.types import Batch, Objective, Outputs
from tests.contracts.test_objectives import OF_SAMPLES, Recording, classes
from tests.objectives.ragged import total

SIZE, KINDS = 8, ("image", "text", "sound")

OBJECTIVES: list[Objective] = [
    Contrastive(modalities=KINDS),
    Contrastive(
        modalities=KINDS, half=False, reduce="sum", pairs="star", positives="label", weights={"image-text": 0.5}
    ),
    Contrastive(modalities=KINDS, loss="siglip", positives="label"),
    Classify(),
    Classify(smoothing=0.1),
]


def make_batch(names: frozenset[str], rows: Sequence[int] = range(SIZE), present: float = 0.7) -> Batch:
    generator = torch.Generator().manual_seed(0)
    index = torch.tensor(list(rows), dtype=torch.long)
    columns = {n: torch.randint(0, 3, (SIZE,), generator=generator).double()[index] for n in sorted(names)}
    has = {kind: (torch.rand(SIZE, generator=generator) < present)[index] for kind in KINDS}
    nobody = torch.zeros(0, dtype=torch.long)
    return Batch(nobody, nobody, {}, sample_ids=index, sample_columns=Recording(columns), modality_mask=has)


def leaves() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)

    def made(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    return {
        "embeddings": {kind: made(SIZE, 5) for kind in KINDS},
        "classes": made(SIZE, 3),
        "aux": {"log_scale": made(), "bias/image-text": made()},
    }


def flat(outputs: dict[str, Any]) -> list[Tensor]:
    return [*outputs["embeddings"].values(), outputs["classes"], *outputs["aux"].values()]


def run(
    objective: Objective, outputs: dict[str, Any], cuts: Sequence[Sequence[int]], present: float = 0.7
) -> list[Tensor]:
    """The loss over these micro-batches, and its gradient on each output."""
    parts = []
    for rows in cuts:
        index = torch.tensor(list(rows), dtype=torch.long)
        micro = Outputs(
            embeddings={k: v[index] for k, v in outputs["embeddings"].items()},
            classes=outputs["classes"][index],
            aux=outputs["aux"],
        )
        parts.append((make_batch(objective.required_columns, rows, present), micro))
    value = total(objective, parts)
    return [value, *torch.autograd.grad(value, flat(outputs), materialize_grads=True, allow_unused=True)]


ALL = [list(range(SIZE))]
every = pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)


def test_these_are_all_of_them() -> None:
    assert {type(o).__name__ for o in OBJECTIVES} == OF_SAMPLES
    assert {c.__name__ for c in classes()} >= OF_SAMPLES


@every
def test_columns_read_are_columns_declared(objective: Objective) -> None:
    batch = make_batch(objective.required_columns)
    objective.counts(batch)
    outputs = leaves()
    objective(Outputs(**outputs), batch)
    assert isinstance(batch.sample_columns, Recording)
    assert batch.sample_columns.read == objective.required_columns


@every
def test_counts_have_the_names_of_the_terms(objective: Objective) -> None:
    batch = make_batch(objective.required_columns)
    loss = objective(Outputs(**leaves()), batch)
    assert loss.terms.keys() == objective.counts(batch).keys()
    assert all(t.shape == () and t.requires_grad for t in loss.terms.values())
    for pair in loss.metrics.values():
        assert all(torch.as_tensor(v).shape == () and not torch.as_tensor(v).requires_grad for v in pair)


@every
def test_the_order_of_samples_and_their_cuts_do_not_show(objective: Objective) -> None:
    outputs = leaves()
    whole = run(objective, outputs, ALL)
    assert float(whole[0].detach()) != 0
    torch.testing.assert_close(run(objective, outputs, [[6, 7, 2, 3, 0, 1, 4, 5]]), whole)
    if objective.unit != "batch":
        torch.testing.assert_close(run(objective, outputs, [[0, 1, 2], [], [3, 4, 5, 6, 7]]), whole)


@every
def test_nothing_to_train_is_zero_with_a_finite_gradient(objective: Objective) -> None:
    if isinstance(objective, Contrastive):
        value, *grads = run(objective, leaves(), ALL, present=0.0)
    else:
        value, *grads = run(objective, leaves(), [[]])
    assert value.requires_grad
    assert float(value.detach()) == 0
    assert all((g == 0).all() for g in grads)
