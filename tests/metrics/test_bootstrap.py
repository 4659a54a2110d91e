"""Bootstrap intervals against closed forms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pytest

from mmpost.metrics.bootstrap import bootstrap, confidence_interval
from mmpost.types import Reply, Sample


def mean(samples: Sequence[Sample]) -> Mapping[str, float]:
    return {"mean": sum(s.replies[0].scores["x"] for s in samples) / len(samples)}


def scored(values: Iterable[float]) -> list[Sample]:
    return [Sample(str(i), (), (Reply((), scores={"x": float(v)}),)) for i, v in enumerate(values)]


def test_the_spread_is_that_of_seeds_and_samples_together() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(size=200)  # difficulty of each sample, the same for every seed
    own = [2.0, 0.0, -2.0]
    seeds = [scored(common + shift) for shift in own]
    drawn = np.array(bootstrap(mean, seeds, resamples=4000)["mean"])
    # All seeds share the samples, whose noise does not average out: variance = var(seeds)/S + var(samples)/n.
    expected = math.sqrt(np.var(own) / 3 + np.var(common) / 200)
    assert drawn.std() == pytest.approx(expected, rel=0.05)
    low, high = confidence_interval(drawn.tolist())
    assert low < common.mean() < high


def test_one_seed_is_the_plain_bootstrap() -> None:
    values = np.random.default_rng(1).normal(size=400)
    drawn = np.array(bootstrap(mean, [scored(values)], resamples=4000)["mean"])
    assert drawn.std() == pytest.approx(values.std() / 20, rel=0.05)


def test_arms_on_the_same_samples_are_drawn_together() -> None:
    values = np.random.default_rng(2).normal(size=50)
    first = bootstrap(mean, [scored(values), scored(values + 1)])["mean"]
    second = bootstrap(mean, [scored(values + 3), scored(values + 4)])["mean"]
    assert np.allclose(np.subtract(second, first), 3)


def test_a_metric_that_a_resample_lacks_is_left_out_of_its_interval() -> None:
    def rare(samples: Sequence[Sample]) -> Mapping[str, float]:
        found = [s for s in samples if s.uid == "0"]
        return {"all": 1.0, **({"rare": 2.0} if found else {})}

    drawn = bootstrap(rare, [scored([1, 2, 3])])
    assert confidence_interval(drawn["rare"]) == (2.0, 2.0)
    assert all(math.isnan(v) for v in confidence_interval([math.nan]))


def test_with_one_seed_only_the_samples_consume_random_numbers() -> None:
    values = np.random.default_rng(3).normal(size=30)
    generator = np.random.default_rng(0)
    expected = [sum(values[generator.integers(30, size=30)].tolist()) / 30 for _ in range(20)]
    assert bootstrap(mean, [scored(values)], resamples=20)["mean"] == expected
