"""Metrics and intervals of evaluations: against closed forms, by clusters, and whatever the shards."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from mmpost.benchmarks.benchmark import Scored
from mmpost.benchmarks.estimates import estimates, wilson
from mmpost.benchmarks.summaries import Mean
from mmpost.types import Sample


def scored(score: float, cluster: int = 0, group: str = "") -> Scored:
    return Scored(Sample(f"{cluster}", (), meta={"group": group}), "", None, score)


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (7, 7), (3, 10), (450, 1000)])
def test_wilson_is_the_score_interval(hits: int, n: int) -> None:
    exact = binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits / n, n) == pytest.approx((exact.low, exact.high))


def test_each_group_has_its_own_n() -> None:
    summary = Mean(groups=lambda sample: [sample.meta["group"]])
    found = estimates(summary, [[scored(1, 0, "a")], [scored(0, 1, "a")], [scored(1, 2, "b")]])
    assert {name: (e["value"], e["n"]) for name, e in found.items()} == {
        "accuracy": (pytest.approx(2 / 3), 3),
        "accuracy/a": (0.5, 2),
        "accuracy/b": (1, 1),
    }
    assert (found["accuracy/a"]["low"], found["accuracy/a"]["high"]) == pytest.approx(wilson(0.5, 2))


def test_questions_of_one_picture_are_drawn_together() -> None:
    generator = np.random.default_rng(1)
    pictures = (generator.random(100) < 0.5).astype(float)
    clusters = [[scored(value, i) for _ in range(6)] for i, value in enumerate(pictures)]
    by_picture = estimates(Mean(), clusters)["accuracy"]
    by_question = estimates(Mean(), [[each] for cluster in clusters for each in cluster])["accuracy"]
    assert by_picture["value"] == by_question["value"] == pictures.mean()
    width, narrow = (e["high"] - e["low"] for e in (by_picture, by_question))
    assert width == pytest.approx(2 * 1.96 * np.sqrt(pictures.var() / 100), rel=0.1)
    assert width / narrow == pytest.approx(np.sqrt(6), rel=0.1)


def test_all_alike_is_not_certain() -> None:
    found = estimates(Mean(), [[scored(1, i)] * 6 for i in range(10)])["accuracy"]
    assert (found["value"], found["n"]) == (1, 60)
    assert (found["low"], found["high"]) == pytest.approx(wilson(1, 10))


def test_a_metric_that_no_question_has_is_left_out() -> None:
    assert estimates(Mean(), []) == {}
