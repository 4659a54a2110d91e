"""InjectTruth and SmoothTruth: the ground truth as one more reply."""

import math

import pytest

from mmpost.transforms.generate import InjectTruth
from mmpost.transforms.score import SmoothTruth
from tests.transforms.fakes import FakeContext, column, group


def test_injection():
    samples = [group([1, 2], temperature=[0.7, 0.7]), group([1], uid="b")]
    context = FakeContext()
    texts = {"a": "<answer>42</answer>", "b": None}
    first, second = InjectTruth(text=lambda sample: texts[sample.uid])(samples, context)
    truth = first.replies[-1]
    assert (len(first.replies), len(second.replies)) == (3, 1)
    assert (truth.origin, truth.text) == ("truth", "<answer>42</answer>")
    assert truth.columns == {"injected": 1.0, "truncated": 0.0, "temperature": 0.7}
    assert column(first, "injected") == [0, 0, 1]
    assert column(second, "injected") == [0]
    assert context.mean("truth/injected") == 0.5


def test_the_injected_text_can_depend_on_the_rollouts():
    """`text` gets the sample with its replies, so it can adapt the truth to them."""
    (sample,) = InjectTruth(text=lambda sample: sample.replies[0].text.upper())([group([1])], FakeContext())
    assert sample.replies[-1].text == "POLICY 0"


@pytest.mark.parametrize(
    ("rollouts", "truth", "expected"),
    [
        ([7, 3], 6, 5),
        ([6, 2], 6, 4),
        ([6 - 1e-7, 2], 6, 4),
        ([6 - 1e-5, 2], 6, 6),
        ([1, 2], 6, 6),
        ([math.nan, 7], 6, 7),
        ([math.nan], 6, 6),
    ],
)
def test_smoothing(rollouts, truth, expected):
    context = FakeContext()
    (sample,) = SmoothTruth()([group(rollouts, truth)], context)
    rewards = column(sample, "reward")
    assert rewards[-1] == pytest.approx(expected, abs=1e-6)
    assert rewards[:-1] == pytest.approx(rollouts, nan_ok=True)
    assert context.logs["truth/smoothed"] == [float(expected != truth)]


def test_smoothing_leaves_plain_groups_and_unscorable_truth_alone():
    (without_truth,) = SmoothTruth()([group([1, 2])], FakeContext())
    assert column(without_truth, "reward") == [1, 2]
    (unscored,) = SmoothTruth()([group([1, 2], math.nan)], FakeContext())
    assert math.isnan(column(unscored, "reward")[-1])
