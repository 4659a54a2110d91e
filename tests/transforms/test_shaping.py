"""What happens to rewards between scoring and credit."""

import math

import pytest
from pydantic import ValidationError

from mmpost.errors import ColumnError
from mmpost.transforms.shaping import ClipReward, KLReward, OverlongPenalty
from tests.transforms.fakes import FakeContext, column, group


@pytest.mark.parametrize(("tokens", "want"), [(0, 0), (80, 0), (81, -0.05), (90, -0.5), (100, -1), (101, -1)])
def test_overlong(tokens, want):
    (sample,) = OverlongPenalty(max_tokens=100, buffer=20)([group([2.0], lengths=[tokens])], FakeContext())
    assert column(sample, "reward")[0] == pytest.approx(2 + want)
    (sample,) = OverlongPenalty(max_tokens=100, buffer=20, factor=3)([group([2.0], lengths=[tokens])], FakeContext())
    assert column(sample, "reward")[0] == pytest.approx(2 + 3 * want)


def test_overlong_spares_the_truth_and_what_has_no_reward():
    sample = group([math.nan], 6, lengths=[100, 100])
    (found,) = OverlongPenalty(max_tokens=100, buffer=20)([sample], FakeContext())
    assert math.isnan(column(found, "reward")[0])
    assert column(found, "reward")[1] == 6
    with pytest.raises(ValidationError, match="must not exceed"):
        OverlongPenalty(max_tokens=10, buffer=20)


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
    with pytest.raises(ColumnError, match=r"old_logp.*OldLogp"):
        KLReward(beta=0.1)([group([1.0])], FakeContext())
