"""The measures against hand-computed values, and their intervals against closed forms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from mmpost.metrics.bootstrap import confidence_interval
from mmpost.studies import forgetting
from mmpost.types import Reply, Sample


def test_the_three_measures_of_the_card() -> None:
    a = [[90.0], [80.0, 70.0], [75.0, 60.0, 88.0]]  # rows hold only the tasks seen so far
    assert forgetting.average_accuracy(a) == pytest.approx(74.3333, abs=1e-4)
    assert forgetting.fm(a) == -12.5
    assert forgetting.max_forgetting(a) == 12.5
    assert forgetting.learning_accuracy(a) == pytest.approx((90 + 70 + 88) / 3)


def test_signs_are_opposite_and_only_fm_sees_backward_transfer() -> None:
    gains = [[50.0, 0.0], [60.0, 40.0]]
    assert forgetting.fm(gains) == 10
    assert forgetting.max_forgetting(gains) == 0
    # It rose to 80 and fell back to 50: forgotten relative to its best value, not to its first.
    returns = [[50.0, 0.0, 0.0], [80.0, 40.0, 0.0], [50.0, 40.0, 10.0]]
    assert forgetting.fm(returns) == 0
    assert forgetting.max_forgetting(returns) == 15


def test_forward_transfer_is_what_a_task_gains_before_it_is_trained() -> None:
    base = [5.0, 10.0, 20.0]
    a = [[90.0, 14.0, 50.0], [80.0, 70.0, 18.0], [75.0, 60.0, 88.0]]
    assert forgetting.forward_transfer(base, a) == ((14 - 10) + (18 - 20)) / 2


def test_untrained_evaluations_count_in_their_own_measure_alone() -> None:
    base, a = [10.0, 20.0], [[50.0, 20.0], [40.0, 60.0]]
    wide = forgetting.measures([*base, 70.0, 30.0], [[*a[0], 0.0, 0.0], [*a[1], 50.0, 40.0]])
    plain = forgetting.measures(base, a)
    assert "GeneralChange" not in plain
    assert wide == {**plain, "GeneralChange": (-20 + 10) / 2}
    at_once = forgetting.measures([*base, 70.0, 30.0], [[*a[0], 0.0, 0.0], [*a[1], 50.0, 40.0]], [70.0, 50.0, 0.0, 0.0])
    assert at_once == {**wide, "JointAcc": 60}
    assert list(at_once) == list(forgetting.MEANINGS)


def scored(values: Iterable[float]) -> list[Sample]:
    return [Sample(str(i), (), (Reply((), scores={"x": float(v)}),)) for i, v in enumerate(values)]


def mean(samples: Sequence[Sample]) -> float:
    return sum(s.replies[0].scores["x"] for s in samples) / len(samples)


def test_means_of_resamples_are_drawn_over_seeds_and_over_the_samples_of_each_task() -> None:
    rng = np.random.default_rng(0)
    base = [scored([0.0] * 200), scored([0.0] * 100)]
    first, second, own = rng.normal(size=200), rng.normal(size=100), [3.0, 0.0, -3.0]
    # For each seed a_{1,1} is sampling noise, a_{2,1} the same noise minus what the seed forgets, a_{2,2} other noise.
    seeds = [[[scored(first), scored([0.0] * 100)], [scored(first - lost), scored(second)]] for lost in own]
    drawn = forgetting.resample_measures(base, seeds, [mean, mean], resamples=3000)
    # Forgetting is measured on the same samples, so sampling noise cancels and only the spread over seeds remains.
    assert np.std(drawn["FM"]) == pytest.approx(math.sqrt(np.var(own) / 3), rel=0.05)
    # The final accuracy has both; the noise is half of each task's, whose samples are drawn independently.
    noise = (np.var(first) / 200 + np.var(second) / 100) / 4
    assert np.std(drawn["AvgAcc"]) == pytest.approx(math.sqrt(np.var(own) / 12 + noise), rel=0.05)
    assert np.std(drawn["1/1"]) == pytest.approx(math.sqrt(np.var(first) / 200), rel=0.05)
    assert set(drawn["0/1"]) == {0.0}
    assert "JointAcc" not in drawn
    joint = [[scored(first + lost), scored(second)] for lost in own]
    drawn = forgetting.resample_measures(base, seeds, [mean, mean], joint, resamples=3000)
    # Compared on the same seeds and samples.
    gaps = np.subtract(drawn["JointAcc"], drawn["AvgAcc"])
    assert np.std(gaps) == pytest.approx(math.sqrt(np.var(own) / 3), rel=0.05)
    assert np.allclose(drawn["joint/1"], 2 * np.array(drawn["JointAcc"]) - drawn["joint/2"])
    low, high = confidence_interval(drawn["FM"])
    assert low < 0 < high


def test_arms_on_the_same_samples_are_drawn_together() -> None:
    values = np.random.default_rng(2).normal(size=50)
    base = [scored(values), scored(values)]

    def arm(shift: float) -> forgetting.Resampled:
        rows = [[scored(values), scored(values)], [scored(values + shift), scored(values)]]
        return forgetting.resample_measures(base, [rows, rows], [mean, mean], resamples=50)

    gaps = np.subtract(arm(3.0)["AvgAcc"], arm(1.0)["AvgAcc"])
    assert np.allclose(gaps, 1.0)
