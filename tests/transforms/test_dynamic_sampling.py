"""Dynamic sampling."""

import math

import pytest

from mmpost.transforms.dynamic_sampling import DropZeroVariance
from mmpost.transforms.score import SmoothTruth
from tests.transforms.fakes import FakeContext, group


@pytest.mark.parametrize(
    ("rewards", "truth", "kept"),
    [
        ([1, 0], None, True),
        ([1, 1], None, False),
        ([0.1 + 0.2, 0.3], None, False),
        ([math.nan, 1], None, False),
        ([math.nan, math.nan], None, False),
        ([], None, False),
        ([0, 0], 6, True),  # the group that injection lives on
    ],
)
def test_flat_groups_go(rewards, truth, kept):
    context = FakeContext()
    assert len(DropZeroVariance()([group(rewards, truth)], context)) == kept
    assert context.logs["resample/dropped"] == [1.0 - kept]


def test_after_smoothing_a_solved_group_is_flat():
    context = FakeContext()
    assert DropZeroVariance()(SmoothTruth()([group([7, 7], 6)], context), context) == []


def test_another_score_decides():
    scores = [{"right": 1.0}, {"right": 1.0}]
    assert DropZeroVariance(score="right")([group([1, 2], scores=scores)], FakeContext()) == []
    assert len(DropZeroVariance()([group([1, 2], scores=scores)], FakeContext())) == 1


def test_bounds_on_the_mean_of_the_rollouts():
    drop = DropZeroVariance(bounds=(0.2, 0.8))
    samples = [group([1, 1, 1, 1, 0.9]), group([1, 0], uid="b"), group([0, 0.1], 0.9, uid="c")]
    assert [s.uid for s in drop(samples, FakeContext())] == ["b"]
