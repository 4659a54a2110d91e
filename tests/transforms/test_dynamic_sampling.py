"""DropZeroVariance: dynamic sampling."""

import math

import pytest

from mmpost.transforms.dynamic_sampling import DropZeroVariance
from mmpost.transforms.score import SmoothTruth
from tests.transforms.fakes import FakeContext, group


@pytest.mark.parametrize(
    ("rewards", "truth", "is_kept"),
    [
        ([1, 0], None, True),
        ([1, 1], None, False),
        ([0.1 + 0.2, 0.3], None, False),
        ([math.nan, 1], None, False),
        ([math.nan, math.nan], None, False),
        ([], None, False),
        ([0, 0], 6, True),  # zero variance without the truth: the case that injection is for
    ],
)
def test_zero_variance_groups_are_dropped(rewards, truth, is_kept):
    context = FakeContext()
    assert len(DropZeroVariance()([group(rewards, truth)], context)) == is_kept
    assert context.logs["resample/dropped"] == [1.0 - is_kept]


def test_a_solved_group_has_zero_variance_after_smoothing():
    context = FakeContext()
    assert DropZeroVariance()(SmoothTruth()([group([7, 7], 6)], context), context) == []


def test_another_score_can_be_used():
    scores = [{"right": 1.0}, {"right": 1.0}]
    assert DropZeroVariance(score="right")([group([1, 2], scores=scores)], FakeContext()) == []
    assert len(DropZeroVariance()([group([1, 2], scores=scores)], FakeContext())) == 1


def test_bounds_on_the_mean_of_the_rollouts():
    drop = DropZeroVariance(bounds=(0.2, 0.8))
    samples = [group([1, 1, 1, 1, 0.9]), group([1, 0], uid="b"), group([0, 0.1], 0.9, uid="c")]
    assert [s.uid for s in drop(samples, FakeContext())] == ["b"]
