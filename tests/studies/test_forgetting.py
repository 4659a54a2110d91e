"""Continual-learning metrics against hand-computed values, and their intervals against closed forms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from mmpost.metrics.bootstrap import confidence_interval
from mmpost.studies import forgetting
from mmpost.types import Reply, Sample


def test_the_metrics_of_the_published_example() -> None:
    a = [[90.0], [80.0, 70.0], [75.0, 60.0, 88.0]]  # rows hold only the tasks seen so far
    assert forgetting.average_accuracy(a) == pytest.approx(74.3333, abs=1e-4)
    assert forgetting.fm(a) == -12.5
    assert forgetting.max_forgetting(a) == 12.5
    assert forgetting.learning_accuracy(a) == pytest.approx((90 + 70 + 88) / 3)


def test_signs_are_opposite_and_only_fm_sees_backward_transfer() -> None:
    rising = [[50.0, 0.0], [60.0, 40.0]]
    assert forgetting.fm(rising) == 10
    assert forgetting.max_forgetting(rising) == 0
    # Rises to 80, falls back to 50: forgotten relative to the best value, not to the first.
    rise_and_fall = [[50.0, 0.0, 0.0], [80.0, 40.0, 0.0], [50.0, 40.0, 10.0]]
    assert forgetting.fm(rise_and_fall) == 0
    assert forgetting.max_forgetting(rise_and_fall) == 15


def test_forward_transfer_is_what_a_task_gains_before_it_is_trained() -> None:
    base = [5.0, 10.0, 20.0]
    a = [[90.0, 14.0, 50.0], [80.0, 70.0, 18.0], [75.0, 60.0, 88.0]]
    assert forgetting.forward_transfer(base, a) == ((14 - 10) + (18 - 20)) / 2


def test_untrained_evaluations_affect_general_change_only() -> None:
    base, a = [10.0, 20.0], [[50.0, 20.0], [40.0, 60.0]]
    with_untrained = forgetting.measures([*base, 70.0, 30.0], [[*a[0], 0.0, 0.0], [*a[1], 50.0, 40.0]])
    plain = forgetting.measures(base, a)
    assert "GeneralChange" not in plain
    assert with_untrained == {**plain, "GeneralChange": (-20 + 10) / 2}
    with_joint = forgetting.measures(
        [*base, 70.0, 30.0], [[*a[0], 0.0, 0.0], [*a[1], 50.0, 40.0]], [70.0, 50.0, 0.0, 0.0]
    )
    assert with_joint == {**with_untrained, "JointAcc": 60}
    assert list(with_joint) == list(forgetting.MEANINGS)


def samples_with_scores(values: Iterable[float]) -> list[Sample]:
    return [Sample(str(i), (), (Reply((), scores={"x": float(v)}),)) for i, v in enumerate(values)]


def mean_score(samples: Sequence[Sample]) -> float:
    return sum(s.replies[0].scores["x"] for s in samples) / len(samples)


def test_resampling_covers_seeds_and_the_samples_of_each_task() -> None:
    rng = np.random.default_rng(0)
    base = [samples_with_scores([0.0] * 200), samples_with_scores([0.0] * 100)]
    first, second, losses = rng.normal(size=200), rng.normal(size=100), [3.0, 0.0, -3.0]
    # Per seed: a_{1,1} is sampling noise, a_{2,1} the same noise minus the loss of the seed, a_{2,2} other noise.
    seeds = [
        [
            [samples_with_scores(first), samples_with_scores([0.0] * 100)],
            [samples_with_scores(first - loss), samples_with_scores(second)],
        ]
        for loss in losses
    ]
    resampled = forgetting.resample_measures(base, seeds, [mean_score, mean_score], resamples=3000)
    # Forgetting is measured on the same samples, so sampling noise cancels and only the spread over seeds remains.
    assert np.std(resampled["FM"]) == pytest.approx(math.sqrt(np.var(losses) / 3), rel=0.05)
    # The final accuracy has both; the noise is half of each task's, whose samples are drawn independently.
    noise = (np.var(first) / 200 + np.var(second) / 100) / 4
    assert np.std(resampled["AvgAcc"]) == pytest.approx(math.sqrt(np.var(losses) / 12 + noise), rel=0.05)
    assert np.std(resampled["1/1"]) == pytest.approx(math.sqrt(np.var(first) / 200), rel=0.05)
    assert set(resampled["0/1"]) == {0.0}
    assert "JointAcc" not in resampled
    joint = [[samples_with_scores(first + loss), samples_with_scores(second)] for loss in losses]
    resampled = forgetting.resample_measures(base, seeds, [mean_score, mean_score], joint, resamples=3000)
    # Compared on the same seeds and samples.
    gaps = np.subtract(resampled["JointAcc"], resampled["AvgAcc"])
    assert np.std(gaps) == pytest.approx(math.sqrt(np.var(losses) / 3), rel=0.05)
    assert np.allclose(resampled["joint/1"], 2 * np.array(resampled["JointAcc"]) - resampled["joint/2"])
    low, high = confidence_interval(resampled["FM"])
    assert low < 0 < high


def test_arms_with_the_same_samples_use_the_same_resamples() -> None:
    values = np.random.default_rng(2).normal(size=50)
    base = [samples_with_scores(values), samples_with_scores(values)]

    def resample_arm(shift: float) -> forgetting.Resampled:
        rows = [
            [samples_with_scores(values), samples_with_scores(values)],
            [samples_with_scores(values + shift), samples_with_scores(values)],
        ]
        return forgetting.resample_measures(base, [rows, rows], [mean_score, mean_score], resamples=50)

    gaps = np.subtract(resample_arm(3.0)["AvgAcc"], resample_arm(1.0)["AvgAcc"])
    assert np.allclose(gaps, 1.0)
