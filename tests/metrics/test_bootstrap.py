"""Bootstrap intervals against closed forms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pytest

from mmpost.metrics.bootstrap import bootstrap, confidence_interval
from mmpost.types import Reply, Sample


def mean_metric(samples: Sequence[Sample]) -> Mapping[str, float]:
    return {"mean": sum(s.replies[0].scores["x"] for s in samples) / len(samples)}


def samples_with_scores(values: Iterable[float]) -> list[Sample]:
    return [Sample(str(i), (), (Reply((), scores={"x": float(v)}),)) for i, v in enumerate(values)]


def test_its_standard_error_is_that_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(size=400)
    resampled = np.array(bootstrap(mean_metric, samples_with_scores(values), 4000)["mean"])
    assert resampled.std() == pytest.approx(values.std() / 20, rel=0.05)


def test_a_metric_missing_in_some_resamples_still_has_an_interval() -> None:
    def metrics_with_gaps(samples: Sequence[Sample]) -> Mapping[str, float]:
        first_sample = [s for s in samples if s.uid == "0"]
        return {"all": 1.0, **({"rare": 2.0} if first_sample else {})}

    resampled = bootstrap(metrics_with_gaps, samples_with_scores([1, 2, 3]), 1000)
    assert confidence_interval(resampled["rare"]) == (2.0, 2.0)
    assert all(math.isnan(v) for v in confidence_interval([math.nan]))


def test_only_the_samples_consume_random_numbers() -> None:
    values = np.random.default_rng(3).normal(size=30)
    generator = np.random.default_rng(0)
    expected = [sum(values[generator.integers(30, size=30)].tolist()) / 30 for _ in range(20)]
    assert bootstrap(mean_metric, samples_with_scores(values), 20)["mean"] == expected
