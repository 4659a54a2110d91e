"""RolloutBatcher: order, refilling, prefetching and errors of rollout batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mmpost.errors import ConfigError, DataError, TrainError
from mmpost.objectives.likelihood import Likelihood
from mmpost.training.batches import RolloutBatcher
from mmpost.training.context import TrainingContext
from mmpost.types import Part, RefillBatch, Sample, Stage


class RecordingModel:
    """A model without coordinate frames that records what it is asked to prefetch."""

    def __init__(self) -> None:
        self.prefetched: list[list[str]] = []

    def prefetch(self, samples: Sequence[Sample]) -> None:
        self.prefetched.append(uids(samples))

    def coordinate_frame(self, sample: Sample) -> None:
        return None


SOURCE = [Sample(f"s{i}", (Part("text", str(i)),)) for i in range(10)]


def batcher(
    transforms: Sequence[Any] = (), prompts: int = 4, seed: int = 0, source: Sequence[Sample] = SOURCE
) -> RolloutBatcher:
    stage = Stage("a", source, Likelihood(), prompts, tuple(transforms))
    return RolloutBatcher(stage, TrainingContext(RecordingModel(), None, seed))  # type: ignore[arg-type]


def uids(samples: Sequence[Sample]) -> list[str]:
    return [s.uid for s in samples]


def test_each_epoch_has_every_sample_once_in_a_new_order() -> None:
    batches = batcher(prompts=5)
    first, second = uids(batches.next()) + uids(batches.next()), uids(batches.next()) + uids(batches.next())
    assert sorted(first) == sorted(second) == sorted(s.uid for s in SOURCE)
    assert first != second


def test_the_order_depends_on_seed_and_position_alone() -> None:
    first, second = batcher(), batcher()
    batch_uids = [uids(first.next()) for _ in range(5)]
    assert batch_uids == [uids(second.next()) for _ in range(5)]
    resumed = batcher()
    resumed.drawn = 12
    assert uids(resumed.next()) == batch_uids[3]
    assert uids(batcher(seed=1).next()) != batch_uids[0]


def test_refill_repeats_the_transforms_before_it_only() -> None:
    sizes: list[int] = []

    def keep_odd(samples: list[Sample], context: Any) -> list[Sample]:
        return [s for s in samples if int(s.uid[1:]) % 2]

    def record_size(samples: list[Sample], context: Any) -> list[Sample]:
        sizes.append(len(samples))
        return samples

    assert len(batcher([keep_odd, RefillBatch(4), record_size]).next()) == 4
    assert sizes == [4]


def test_refill_stops_after_max_rounds_and_logs_the_shortfall() -> None:
    batches = batcher([lambda samples, context: samples[:1], RefillBatch(4, max_rounds=2)])
    assert len(batches.next()) == 2
    assert batches.context.pop_metrics()["resample/shortfall"] == 2


def test_an_empty_batch_is_refilled_and_an_empty_source_is_refused() -> None:
    rounds: list[int] = []

    def empty_twice(samples: list[Sample], context: Any) -> list[Sample]:
        rounds.append(1)
        return samples if len(rounds) == 3 else []

    assert len(batcher([empty_twice]).next()) == 4
    with pytest.raises(TrainError, match="20 rollout batches in a row were empty"):
        batcher([lambda samples, context: []]).next()
    with pytest.raises(ConfigError, match="no samples"):
        batcher(source=[])


def test_the_next_batch_is_prefetched() -> None:
    batches = batcher(prompts=4)
    batch_uids = [uids(batches.next()) for _ in range(5)]
    assert batches.context.model.prefetched[:-1] == batch_uids[1:]  # type: ignore[attr-defined]


class BrokenSource(list[Sample]):
    """A source whose row 3 cannot be read; records the index of each access."""

    def __init__(self) -> None:
        super().__init__(SOURCE)
        self.accesses: list[int] = []

    def __getitem__(self, index: Any) -> Any:
        self.accesses.append(index)
        if index == 3:
            raise DataError("no such row")
        return super().__getitem__(index)


def test_a_prefetched_sample_is_read_once_and_raises_when_used() -> None:
    source = BrokenSource()
    batches = batcher(prompts=1, source=source)
    order = [batches._source_index(i) for i in range(10)]
    for index in order[: order.index(3)]:
        assert uids(batches.next()) == [f"s{index}"]
    with pytest.raises(DataError, match="no such row"):
        batches.next()
    assert source.accesses == order[: order.index(3) + 1]
