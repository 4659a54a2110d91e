"""Where rollout batches come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mmpost.errors import ConfigError, DataError, TrainError
from mmpost.objectives.likelihood import Likelihood
from mmpost.training.batches import RolloutBatcher
from mmpost.training.context import TrainingContext
from mmpost.types import Part, RefillBatch, Sample, Stage


class Plain:
    """A model that has nothing to say about frames, and is told what comes next."""

    def __init__(self) -> None:
        self.told: list[list[str]] = []

    def prefetch(self, samples: Sequence[Sample]) -> None:
        self.told.append(uids(samples))

    def coordinate_frame(self, sample: Sample) -> None:
        return None


SOURCE = [Sample(f"s{i}", (Part("text", str(i)),)) for i in range(10)]


def feed(
    transforms: Sequence[Any] = (), prompts: int = 4, seed: int = 0, source: Sequence[Sample] = SOURCE
) -> RolloutBatcher:
    stage = Stage("a", source, Likelihood(), prompts, tuple(transforms))
    return RolloutBatcher(stage, TrainingContext(Plain(), None, seed))  # type: ignore[arg-type]


def uids(samples: Sequence[Sample]) -> list[str]:
    return [s.uid for s in samples]


def test_each_pass_over_the_source_has_every_sample_once_in_its_own_order() -> None:
    of = feed(prompts=5)
    first, second = uids(of.next()) + uids(of.next()), uids(of.next()) + uids(of.next())
    assert sorted(first) == sorted(second) == sorted(s.uid for s in SOURCE)
    assert first != second


def test_the_order_follows_from_the_seed_and_the_number_drawn() -> None:
    one, other = feed(), feed()
    drawn = [uids(one.next()) for _ in range(5)]
    assert drawn == [uids(other.next()) for _ in range(5)]
    resumed = feed()
    resumed.drawn = 12
    assert uids(resumed.next()) == drawn[3]
    assert uids(feed(seed=1).next()) != drawn[0]


def test_collect_repeats_what_is_before_it_and_does_the_rest_once() -> None:
    calls: list[int] = []

    def odd(samples: list[Sample], context: Any) -> list[Sample]:
        return [s for s in samples if int(s.uid[1:]) % 2]

    def last(samples: list[Sample], context: Any) -> list[Sample]:
        calls.append(len(samples))
        return samples

    assert len(feed([odd, RefillBatch(4), last]).next()) == 4
    assert calls == [4]


def test_collect_gives_up_after_its_rounds_and_says_how_much_is_missing() -> None:
    of = feed([lambda samples, context: samples[:1], RefillBatch(4, max_rounds=2)])
    assert len(of.next()) == 2
    assert of.context.pop_metrics()["resample/shortfall"] == 2


def test_an_empty_batch_is_refilled_and_an_empty_source_is_refused() -> None:
    rounds: list[int] = []

    def third(samples: list[Sample], context: Any) -> list[Sample]:
        rounds.append(1)
        return samples if len(rounds) == 3 else []

    assert len(feed([third]).next()) == 4
    with pytest.raises(TrainError, match="20 rollout batches in a row were empty"):
        feed([lambda samples, context: []]).next()
    with pytest.raises(ConfigError, match="no samples"):
        feed(source=[])


def test_the_model_hears_of_the_next_batch_before_it_is_drawn() -> None:
    of = feed(prompts=4)
    batches = [uids(of.next()) for _ in range(5)]
    assert of.context.model.told[:-1] == batches[1:]  # type: ignore[attr-defined]


class Broken(list[Sample]):
    """A source whose third sample cannot be read, and that counts how often each was asked for."""

    def __init__(self) -> None:
        super().__init__(SOURCE)
        self.asked: list[int] = []

    def __getitem__(self, index: Any) -> Any:
        self.asked.append(index)
        if index == 3:
            raise DataError("no such row")
        return super().__getitem__(index)


def test_what_was_read_ahead_is_read_once_and_fails_in_its_own_place() -> None:
    source = Broken()
    of = feed(prompts=1, source=source)
    order = [of._source_index(i) for i in range(10)]
    for place in order[: order.index(3)]:
        assert uids(of.next()) == [f"s{place}"]
    with pytest.raises(DataError, match="no such row"):
        of.next()
    assert source.asked == order[: order.index(3) + 1]
