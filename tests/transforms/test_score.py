"""Score: the weighted sum of rewards; a failing reward stops the run and shows the sample."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mmpost.errors import TrainError
from mmpost.transforms.score import Score
from mmpost.types import Reply, Sample
from tests.transforms.fakes import FakeContext, column, group


def test_the_reward_is_the_weighted_sum_of_scores() -> None:
    rewards = {"a": lambda sample, reply: 2, "b": lambda sample, reply: None, "c": lambda sample, reply: True}
    context = FakeContext()
    (scored,) = Score(rewards=rewards, weights={"a": 0.5})([group([0.0])], context)
    assert scored.replies[0].scores == {"a": 2.0, "c": 1.0}
    assert column(scored, "reward") == [2.0]
    assert context.mean("reward/total") == 2.0
    (unscored,) = Score(rewards={"b": rewards["b"]})([group([0.0])], FakeContext())
    assert math.isnan(column(unscored, "reward")[0])


def failing_reward(sample: Sample, reply: Reply) -> float:
    return sample.meta["missing"]


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (failing_reward, r"reward 'mine' raised KeyError: 'missing' \(test_score\.py:\d+\)"),
        (lambda sample, reply: math.nan, "wanted a finite number, or None where it does not apply, found nan"),
        (lambda sample, reply: math.inf, "found inf"),
        (lambda sample, reply: "high", "found 'high'"),
    ],
)
def test_a_reward_that_fails_stops_and_shows_the_sample(reward: Any, message: str) -> None:
    with pytest.raises(TrainError, match=message + r"(?s:.)*sample 'a', truth '42', reply 'policy 0'"):
        Score(rewards={"mine": reward})([group([1.0])], FakeContext())
