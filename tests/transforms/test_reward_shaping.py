"""Reward shaping: overlong penalty, length reward, clipping and KL reward."""

import math
from dataclasses import replace

import pytest
from pydantic import ValidationError

from mmpost.errors import ColumnError
from mmpost.transforms.reward_shaping import ClipReward, KLReward, LengthReward, OverlongPenalty
from mmpost.types import Origin, Part, Reply, Sample
from tests.transforms.fakes import FakeContext, column, group


@pytest.mark.parametrize(("tokens", "expected"), [(0, 0), (80, 0), (81, -0.05), (90, -0.5), (100, -1), (101, -1)])
def test_overlong(tokens, expected):
    (sample,) = OverlongPenalty(max_tokens=100, buffer=20)([group([2.0], lengths=[tokens])], FakeContext())
    assert column(sample, "reward")[0] == pytest.approx(2 + expected)
    (sample,) = OverlongPenalty(max_tokens=100, buffer=20, factor=3)([group([2.0], lengths=[tokens])], FakeContext())
    assert column(sample, "reward")[0] == pytest.approx(2 + 3 * expected)


def test_overlong_leaves_truth_and_unscored_replies_alone():
    sample = group([math.nan], 6, lengths=[100, 100])
    (shaped,) = OverlongPenalty(max_tokens=100, buffer=20)([sample], FakeContext())
    assert math.isnan(column(shaped, "reward")[0])
    assert column(shaped, "reward")[1] == 6
    with pytest.raises(ValidationError, match="must not exceed"):
        OverlongPenalty(max_tokens=10, buffer=20)


def group_of_lengths(lengths, rights, origin: Origin = "policy"):
    """A group of replies with these lengths, each correct (1) or wrong (0)."""
    replies = tuple(
        Reply((Part("text", "x" * n),), origin, scores={"right": float(right)}, columns={"reward": 1.0})
        for n, right in zip(lengths, rights, strict=True)
    )
    return Sample("s", (), replies)


def test_length_reward_starts_late_and_compares_within_the_batch():
    samples = [group_of_lengths([100, 200], [1, 1]), group_of_lengths([300], [0])]
    length_reward = LengthReward(score="right")

    def length_bonus(step, **options):
        shaped = length_reward(samples, FakeContext(step=step, **options))
        return [value - 1 for sample in shaped for value in column(sample, "reward")]

    assert length_bonus(799) == [0, 0, 0]
    assert length_bonus(800) == pytest.approx([0.025, 0.0, -0.025])
    assert length_bonus(800, others=[[500.0]]) == pytest.approx([0.025, 0.0125, 0.0])
    (equal_lengths,) = length_reward([group_of_lengths([7, 7], [1, 0])], FakeContext(step=800))
    assert column(equal_lengths, "reward") == [1, 1]


def test_length_reward_leaves_the_truth_and_the_unscored_alone():
    length_reward = LengthReward(score="right", after=0)
    truth = group_of_lengths([900], [1], "truth").replies[0]
    (sample,) = length_reward(
        [replace(group := group_of_lengths([100, 300], [1, 0]), replies=(*group.replies, truth))], FakeContext()
    )
    assert column(sample, "reward") == pytest.approx([1.025, 0.975, 1])
    with pytest.raises(ColumnError, match="wanted the score 'wrong', found right"):
        LengthReward(score="wrong", after=0)([group_of_lengths([1], [1])], FakeContext())


def test_clip():
    (sample,) = ClipReward(low=-1, high=1)([group([-3, 0.5, 3, math.nan])], FakeContext())
    assert column(sample, "reward") == pytest.approx([-1, 0.5, 1, math.nan], nan_ok=True)
    with pytest.raises(ValidationError, match="below"):
        ClipReward(low=1, high=1)


@pytest.mark.parametrize(
    ("estimator", "value"), [("k1", 0.693147), ("k2", 0.240227), ("k3", 0.193147), ("abs", 0.693147)]
)
def test_kl_reward(estimator, value):
    old, ref = [[math.log(0.5)] * 3], [[math.log(0.25)] * 3]
    context = FakeContext()
    (sample,) = KLReward(beta=0.1, estimator=estimator)(
        [group([1.0], lengths=[3], old_logp=old, ref_logp=ref, mask=[[1.0, 0.0, 1.0]])], context
    )
    assert column(sample, "reward")[0] == pytest.approx(1 - 0.1 * 2 * value, abs=1e-6)
    assert context.mean("reward/kl") == pytest.approx(value, abs=1e-6)


def test_kl_reward_names_what_is_missing():
    with pytest.raises(ColumnError, match=r"old_logp.*OldLogprobs"):
        KLReward(beta=0.1)([group([1.0])], FakeContext())
