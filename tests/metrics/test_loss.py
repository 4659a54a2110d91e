"""The loss as a metric: batches of samples over all ranks, and its mean over samples."""

from __future__ import annotations

import pytest

from mmpost.metrics.loss import ObjectiveLoss, mean_loss
from mmpost.objectives.classify import Classify
from mmpost.types import Sample
from tests.transforms.fakes import FakeContext


def losses(count: int, batch_size: int, others: list[list[float]] | None = None) -> list[float]:
    """Of `count` samples; the loss of the fake context is the number of samples that it got."""
    samples = [Sample(str(i), ()) for i in range(count)]
    scored = ObjectiveLoss(Classify(), batch_size)(samples, FakeContext(others or []))
    assert [s.uid for s in scored] == [s.uid for s in samples]
    return [s.replies[-1].scores["loss"] for s in scored]


def test_samples_have_the_loss_of_their_batch() -> None:
    assert losses(5, 2) == [2.0, 2.0, 2.0, 2.0, 1.0]
    assert losses(3, 8) == [3.0, 3.0, 3.0]
    assert losses(0, 2) == []


def test_a_batch_is_divided_among_ranks_which_compute_as_many() -> None:
    assert losses(5, 4, [[5.0]]) == [2.0, 2.0, 2.0, 2.0, 1.0]
    calls: list[int] = []

    class Counting(FakeContext):
        def loss(self, samples: object, objective: object) -> float:
            calls.append(len(samples))  # type: ignore[arg-type]
            return 0.0

    ObjectiveLoss(Classify(), 4)([Sample("a", ())] * 4, Counting([[5.0]]))
    assert calls == [2, 2, 0]


def test_the_mean_is_over_samples() -> None:
    scored = ObjectiveLoss(Classify(), 2)([Sample(str(i), ()) for i in range(5)], FakeContext())
    assert mean_loss(scored) == pytest.approx({"loss": (4 * 2 + 1) / 5})
    assert mean_loss([Sample("a", ())]) == {}
