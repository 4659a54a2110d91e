"""Continual-learning metrics against hand-computed values, and their intervals against closed forms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mmpost.metrics import forgetting
from mmpost.metrics.intervals import replicates
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


def column(values: np.ndarray) -> list[float]:
    """The accuracy of a column with these samples, in 50 groups."""
    samples = [Sample(str(i), (), (Reply((), scores={"x": float(v)}),)) for i, v in enumerate(values)]

    def mean_score(samples: Sequence[Sample]) -> dict[str, float]:
        return {"mean": sum(s.replies[0].scores["x"] for s in samples) / len(samples)}

    return replicates(mean_score, samples, 50)["mean"]


def test_uncertainty_covers_seeds_and_the_samples_of_each_task() -> None:
    rng = np.random.default_rng(0)
    base = [column(np.zeros(200)), column(np.zeros(100))]
    first, second, losses = rng.normal(size=200), rng.normal(size=100), np.array([3.0, 0.0, -3.5])
    # Per seed: a_{1,1} is sampling noise, a_{2,1} the same noise minus the loss of the seed, a_{2,2} other noise.
    seeds = [
        [[column(first), column(np.zeros(100))], [column(first - loss), column(second)]] for loss in losses.tolist()
    ]
    found = {name: value.estimate() for name, value in forgetting.measured([base] * 3, seeds).items()}
    # Forgetting is measured on the same samples, so sampling noise cancels and only the spread over seeds remains.
    assert found["FM"].seeds == pytest.approx(-losses)
    assert found["FM"].sample_variance == pytest.approx(0)
    # The final accuracy has both; the noise is half of each task's, whose samples are independent.
    assert found["AvgAcc"].sd == pytest.approx(losses.std(ddof=1) / 2)
    both = first.reshape(-1, 50).mean(axis=0) + second.reshape(-1, 50).mean(axis=0)
    assert found["AvgAcc"].sample_variance == pytest.approx(both.var(ddof=1) / 50 / 4)
    assert found["1/1"].sd == pytest.approx(0)
    assert found["0/1"].interval() == (0, 0)
    assert "JointAcc" not in found
    joint = [[column(first + loss), column(second)] for loss in losses.tolist()]
    measured = forgetting.measured([base] * 3, seeds, joint)
    gap = (measured["JointAcc"] - measured["AvgAcc"]).estimate()
    assert gap.seeds == pytest.approx(losses)
    assert gap.sample_variance == pytest.approx(0)
