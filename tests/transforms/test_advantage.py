"""Advantages: published closed forms, the trainers of trl, and invariants."""

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from mmpost.errors import ColumnError
from mmpost.transforms.advantage import GlobalWhiten, GroupAdvantage, LeaveOneOut
from mmpost.transforms.reward_shaping import ClipReward, KLReward
from mmpost.transforms.score import SmoothTruth
from mmpost.types import Sample, Sampling
from tests.objectives import oracle
from tests.transforms.fakes import FakeContext, column, group

NAN = math.nan


def advantages_of(transform: Any, *samples: Sample, context: FakeContext | None = None) -> list[list[float]]:
    return [column(s, "advantage") for s in transform(list(samples), context or FakeContext())]


def smoothed_advantages(sample: Sample, **fields: Any) -> list[float]:
    context = FakeContext()
    return advantages_of(GroupAdvantage(**fields), *SmoothTruth()([sample], context))[0]


@pytest.mark.parametrize(
    ("rollouts", "truth", "expected", "truth_advantage"),
    [
        ([1, 1, 1, 1], 6, [-0.447213] * 4, 1.788854),  # no rollout solves it: the truth is imitated
        ([7, 7, 3, 3], 6, [1, 1, -1, -1], 0),  # a rollout beats the truth
        ([6, 2, 2, 2], 6, [1.732050, -0.577350, -0.577350, -0.577350], 0),  # a tie counts as reached
        ([7, 7, 7, 7], 6, [0, 0, 0, 0], 0),
        ([6, 6, 6, 6], 6, [0, 0, 0, 0], 0),  # correct answers without reasoning, truth without reasoning reward
        ([6, 6, 6, 6], 7, [-0.447213] * 4, 1.788850),  # the released bug: the truth gets a reasoning reward
        ([5, 3, 3, 1], 6, [0.718184, -0.307793, -0.307793, -1.333771], 1.231173),
    ],
)
def test_injected_truth(rollouts, truth, expected, truth_advantage):
    actual = smoothed_advantages(group(rollouts, truth))
    assert actual == pytest.approx([*expected, truth_advantage], abs=5e-6)
    if truth_advantage == 0:
        assert actual[-1] == 0.0


def test_without_smoothing_a_solved_truth_keeps_a_positive_advantage():
    actual = advantages_of(GroupAdvantage(), group([6, 2, 2, 2], 6))[0]
    assert actual == pytest.approx([1.095445, -0.730296, -0.730296, -0.730296, 1.095445], abs=1e-6)


def test_truth_with_the_epsilon_of_trl():
    assert smoothed_advantages(group([1] * 4, 6), eps=1e-4) == pytest.approx([-0.447194] * 4 + [1.788774], abs=1e-6)
    assert smoothed_advantages(group([7, 7, 3, 3], 6), eps=1e-4) == pytest.approx(
        [0.999950] * 2 + [-0.999950] * 2 + [0], abs=1e-6
    )


def test_a_smoothed_truth_widens_the_other_advantages_unless_it_is_left_out():
    plain = advantages_of(GroupAdvantage(), group([7, 7, 3, 3]))[0]
    assert plain == pytest.approx([0.866025] * 2 + [-0.866025] * 2, abs=1e-6)
    factors: dict[Any, float] = {1: math.sqrt(4 / 3), 0: math.sqrt(5 / 4)}
    for ddof, factor in factors.items():
        base = advantages_of(GroupAdvantage(ddof=ddof), group([7, 7, 3, 3]))[0]
        with_truth = smoothed_advantages(group([7, 7, 3, 3], 6), ddof=ddof)
        assert with_truth[:4] == pytest.approx([factor * a for a in base], rel=1e-6)
    actual = smoothed_advantages(group([7, 7, 3, 3], 6), gt_in_group_stats="only_if_active")
    assert actual == [*plain, 0.0]
    active = group([5, 3, 3, 1], 6)
    assert smoothed_advantages(active, gt_in_group_stats="only_if_active") == smoothed_advantages(active)


@pytest.mark.parametrize("seed", range(20))
def test_truth_properties(seed):
    """A_y >= 0, the advantages of a group sum to 0, and permuting rollouts permutes advantages."""
    rng = random.Random(seed)
    rewards = [rng.choice([0, 1 / 3, 0.1 * 3, 1, 2, rng.random() * 7]) for _ in range(rng.randint(2, 9))]
    truth = rng.choice([max(rewards), max(rewards) - 1e-7, rng.random() * 8])
    actual = smoothed_advantages(group(rewards, truth))
    assert actual[-1] >= 0
    assert sum(actual) == pytest.approx(0, abs=1e-9)
    assert (actual[-1] == 0) == (max(rewards) >= truth - 1e-6)
    permutation = rng.sample(range(len(rewards)), len(rewards))
    permuted = smoothed_advantages(group([rewards[i] for i in permutation], truth))
    assert permuted[:-1] == pytest.approx([actual[i] for i in permutation], abs=1e-12)


@pytest.mark.parametrize(
    ("fields", "rewards", "expected"),
    [
        ({"eps": 1e-4}, [1, 0, 0, 1], [0.865875, -0.865875, -0.865875, 0.865875]),
        ({}, [1, 0, 0, 1], [0.866024, -0.866024, -0.866024, 0.866024]),
        ({"ddof": 0}, [1, 0, 0, 1], [0.999998, -0.999998, -0.999998, 0.999998]),
        ({"eps": 1e-4}, [1, 0, 0, 0], [1.49970, -0.49990, -0.49990, -0.49990]),
        ({"scale": "none"}, [1, 0, 0, 0], [0.75, -0.25, -0.25, -0.25]),
        ({}, [1] + [0] * 7, [2.4749] + [-0.3536] * 7),
        ({}, [1] * 4 + [0] * 4, [0.9354] * 4 + [-0.9354] * 4),
        ({}, [1] * 7 + [0], [0.3536] * 7 + [-2.4749]),
        ({"eps": 1e-4}, [1, 0], [0.70701, -0.70701]),
        ({}, [0.1 + 0.2, 0.3, 0.3], [0, 0, 0]),
        ({}, [4.0], [0]),
        ({}, [NAN, NAN], [0, 0]),
    ],
)
def test_group_advantage(fields, rewards, expected):
    digits = 5e-5 if len(rewards) == 8 else 5e-6
    assert advantages_of(GroupAdvantage(**fields), group(rewards))[0] == pytest.approx(expected, abs=digits)


def test_unscorable_replies_are_left_out():
    actual = advantages_of(GroupAdvantage(), group([1, NAN, 0, 0, 1]))[0]
    assert actual == pytest.approx([0.866024, 0, -0.866024, -0.866024, 0.866024], abs=1e-6)
    assert advantages_of(LeaveOneOut(), group([1, NAN, 0]))[0] == [1, 0, -1]
    assert advantages_of(LeaveOneOut(), group([1, NAN]))[0] == [0, 0]


def test_logged_statistics_exclude_the_truth():
    context = FakeContext()
    advantages_of(GroupAdvantage(), group([1, 1], 3), group([0, NAN, 2], 2), context=context)
    assert context.mean("reward/zero_std_groups") == 0.5
    assert context.logs["advantage/unscorable"] == [0, 0, 0, 1, 0]
    assert context.mean("advantage/group_std") == pytest.approx(math.sqrt(2) / 2)
    assert context.logs["truth/active"] == [1, 1]


def test_a_missing_reward_names_the_transform_that_makes_it():
    without_reward = FakeContext().generate([Sample(uid="x", prompt=())], 2, Sampling(max_tokens=4))[0]
    with pytest.raises(ColumnError, match=r"'x'.*'reward'.*Score"):
        advantages_of(GroupAdvantage(), without_reward)


def test_leave_one_out():
    expected = [0.666667, -0.666667, -0.666667, 0.666667]
    assert advantages_of(LeaveOneOut(), group([1, 0, 0, 1]))[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("variance", "high", "low"), [("population", 1.527525, -0.654654), ("sample", 1.449138, -0.621059)]
)
def test_reinforce_plus_plus(variance, high, low):
    actual = advantages_of(GlobalWhiten(variance=variance), group([1, 0, 0, 1], lengths=[2, 4, 3, 1]))[0]
    assert actual == pytest.approx([high, low, low, high], abs=1e-6)


def test_reinforce_plus_plus_baseline_subtracts_the_group_mean_first():
    samples = [group([1, 0], lengths=[2, 2]), group([5, 4], lengths=[2, 2], uid="b")]
    actual = advantages_of(GlobalWhiten(baseline=True), *samples)
    assert actual[0] == pytest.approx([1, -1])
    assert actual[1] == pytest.approx([1, -1])


def test_penalties_and_discount_make_returns_per_token():
    logp: dict[str, Any] = {"old_logp": [[-1.0, -1.0], [-1.0]], "ref_logp": [[-1.5, -2.0], [-1.0]]}
    with_penalty = KLReward(beta=0.1, per_token=True)([group([1, 0], lengths=[2, 1], **logp)], FakeContext())
    assert with_penalty[0].replies[0].columns["kl_penalty"] == pytest.approx([-0.05, -0.1])
    (actual,) = GlobalWhiten(penalty=True, gamma=0.5)(with_penalty, FakeContext())
    returns = torch.tensor([-0.05 + 0.5 * 0.9, 0.9, 0.0], dtype=torch.float64)
    expected = (returns - returns.mean()) / returns.std(correction=0)
    first, second = (r.columns["advantage"] for r in actual.replies)
    assert [*first, *second] == pytest.approx(expected.tolist())  # type: ignore[misc]


def test_masked_tokens_have_no_weight():
    mask: dict[str, Any] = {"mask": [[1.0, 1.0], [1.0, 0.0, 0.0, 0.0]]}
    actual = advantages_of(GlobalWhiten(), group([1, 0], lengths=[2, 4], **mask))[0]
    expected = advantages_of(GlobalWhiten(), group([1, 0], lengths=[2, 1]))[0]
    assert actual == pytest.approx(expected)


@pytest.mark.parametrize(
    "transform",
    [
        GroupAdvantage(scale="batch"),
        GroupAdvantage(components={"a": 1.0, "b": 0.5}),
        LeaveOneOut(normalize=True),
        GlobalWhiten(),
        GlobalWhiten(variance="sample", baseline=True),
    ],
)
def test_two_ranks_equal_one_rank(transform):
    """With `gather`, two ranks (also empty ones) give the result of a single rank."""
    rng = random.Random(0)

    def make(uid: str) -> Sample:
        scores = [{"a": rng.random(), "b": rng.random()} for _ in range(4)]
        return group([rng.random() for _ in range(4)], uid=uid, scores=scores, lengths=[3, 1, 4, 2])

    samples = [make(uid) for uid in "abcd"]
    one_rank = advantages_of(transform, *samples)
    for first_part, second_part in ((samples[:3], samples[3:]), (samples, []), (samples[:1], samples[1:])):
        first, second = RecordingContext(), RecordingContext()
        for _ in range(4):  # each collective depends on the previous one
            first, second = RecordingContext(second.gathered), RecordingContext(first.gathered)
            actual = advantages_of(transform, *first_part, context=first) + advantages_of(
                transform, *second_part, context=second
            )
        assert actual == one_rank


class RecordingContext(FakeContext):
    """Records gathered values, to replay them as those of the other rank."""

    def __init__(self, others: Sequence[list[float]] = ()) -> None:
        super().__init__(others=list(others))
        self.gathered: list[list[float]] = []

    def gather(self, values: Any) -> list[float]:
        self.gathered.append(list(values))
        return super().gather(values)


@pytest.fixture(scope="module")
def trl_classes() -> dict[str, type]:
    pytest.importorskip("trl", reason="the numerical reference")
    from trl.trainer.grpo_trainer import GRPOTrainer
    from trl.trainer.rloo_trainer import RLOOTrainer

    return {"grpo": GRPOTrainer, "rloo": RLOOTrainer}


LENGTHS = [3, 7, 1, 5, 2, 6, 4, 4]


def trl_advantages(cls: type, rewards: torch.Tensor, **settings: Any) -> tuple[list[float], dict[str, Any]]:
    rollout = oracle.rollout(LENGTHS, rewards)
    trainer = oracle.trainer(cls, rollout, group=4, accumulate=1, **settings)
    return trainer._generate_and_score_completions([{"prompt": ""}] * 8)["advantages"].tolist(), rollout


def rewards_of(seed: int, functions: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.rand((8, functions), generator=generator, dtype=torch.float64).round(decimals=1)
    rewards[2] = NAN
    return rewards


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_group_advantage_against_trl(trl_classes, scale, seed):
    rewards = rewards_of(seed)
    expected, _ = trl_advantages(trl_classes["grpo"], rewards, scale_rewards=scale)
    r = rewards[:, 0].tolist()
    actual = advantages_of(GroupAdvantage(scale=scale, eps=1e-4), group(r[:4]), group(r[4:], uid="b"))
    assert actual[0] + actual[1] == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_components_against_trl(trl_classes, seed):
    rewards = rewards_of(seed, functions=2)
    rewards[5, 0] = NAN
    weights = torch.tensor([1.0, 0.3], dtype=torch.float64)
    expected, _ = trl_advantages(
        trl_classes["grpo"], rewards, multi_objective_aggregation="normalize_then_sum", reward_weights=weights
    )
    scores = [{name: v for name, v in zip("ab", row, strict=True) if v == v} for row in rewards.tolist()]
    r = [NAN if i == 2 else 1.0 for i in range(8)]
    samples = [group(r[:4], scores=scores[:4]), group(r[4:], scores=scores[4:], uid="b")]
    actual = advantages_of(GroupAdvantage(components={"a": 1.0, "b": 0.3}, eps=1e-4), *samples)
    assert actual[0] + actual[1] == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_leave_one_out_against_trl(trl_classes, normalize, beta):
    rewards = rewards_of(7)
    settings = {"beta": beta, "normalize_advantages": normalize, "reward_clip_range": (0.2, 0.7)}
    expected, rollout = trl_advantages(trl_classes["rloo"], rewards, **settings)
    logp: dict[str, Any] = {
        f"{name}_logp": [row[m].tolist() for row, m in zip(rollout[name], rollout["mask"], strict=True)]
        for name in ("old", "ref")
    }
    r = rewards[:, 0].tolist()
    samples = [
        group(r[:4], lengths=LENGTHS[:4], **{k: v[:4] for k, v in logp.items()}),
        group(r[4:], lengths=LENGTHS[4:], uid="b", **{k: v[4:] for k, v in logp.items()}),
    ]
    samples = ClipReward(low=0.2, high=0.7)(samples, FakeContext())
    if beta:
        samples = KLReward(beta=beta)(samples, FakeContext())
    actual = advantages_of(LeaveOneOut(normalize=normalize), *samples)
    assert actual[0] + actual[1] == pytest.approx(expected, rel=1e-5, abs=1e-7)
