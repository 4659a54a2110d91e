"""Advantages: published closed forms, a released trainer's arithmetic, and what must hold for any rewards."""

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


def credit(transform: Any, *samples: Sample, context: FakeContext | None = None) -> list[list[float]]:
    return [column(s, "advantage") for s in transform(list(samples), context or FakeContext())]


def visurf(sample: Sample, **fields: Any) -> list[float]:
    context = FakeContext()
    return credit(GroupAdvantage(**fields), *SmoothTruth()([sample], context))[0]


@pytest.mark.parametrize(
    ("rollouts", "truth", "want", "own"),
    [
        ([1, 1, 1, 1], 6, [-0.447213] * 4, 1.788854),  # nobody knows: the label is imitated
        ([7, 7, 3, 3], 6, [1, 1, -1, -1], 0),  # a rollout is better
        ([6, 2, 2, 2], 6, [1.732050, -0.577350, -0.577350, -0.577350], 0),  # a tie is reached, too
        ([7, 7, 7, 7], 6, [0, 0, 0, 0], 0),
        ([6, 6, 6, 6], 6, [0, 0, 0, 0], 0),  # right answers without reasoning, label without reasoning credit
        ([6, 6, 6, 6], 7, [-0.447213] * 4, 1.788850),  # the bug: the label has reasoning credit
        ([5, 3, 3, 1], 6, [0.718184, -0.307793, -0.307793, -1.333771], 1.231173),
    ],
)
def test_injected_truth(rollouts, truth, want, own):
    found = visurf(group(rollouts, truth))
    assert found == pytest.approx([*want, own], abs=5e-6)
    if own == 0:
        assert found[-1] == 0.0


def test_without_smoothing_a_reached_truth_is_still_imitated():
    found = credit(GroupAdvantage(), group([6, 2, 2, 2], 6))[0]
    assert found == pytest.approx([1.095445, -0.730296, -0.730296, -0.730296, 1.095445], abs=1e-6)


def test_truth_with_the_epsilon_of_trl():
    assert visurf(group([1] * 4, 6), eps=1e-4) == pytest.approx([-0.447194] * 4 + [1.788774], abs=1e-6)
    assert visurf(group([7, 7, 3, 3], 6), eps=1e-4) == pytest.approx([0.999950] * 2 + [-0.999950] * 2 + [0], abs=1e-6)


def test_a_smoothed_truth_widens_the_other_advantages_unless_it_is_left_out():
    plain = credit(GroupAdvantage(), group([7, 7, 3, 3]))[0]
    assert plain == pytest.approx([0.866025] * 2 + [-0.866025] * 2, abs=1e-6)
    factors: dict[Any, float] = {1: math.sqrt(4 / 3), 0: math.sqrt(5 / 4)}
    for ddof, factor in factors.items():
        base = credit(GroupAdvantage(ddof=ddof), group([7, 7, 3, 3]))[0]
        wide = visurf(group([7, 7, 3, 3], 6), ddof=ddof)
        assert wide[:4] == pytest.approx([factor * a for a in base], rel=1e-6)
    found = visurf(group([7, 7, 3, 3], 6), gt_in_group_stats="only_if_active")
    assert found == [*plain, 0.0]
    active = group([5, 3, 3, 1], 6)
    assert visurf(active, gt_in_group_stats="only_if_active") == visurf(active)


@pytest.mark.parametrize("seed", range(20))
def test_truth_properties(seed):
    """A_y >= 0, the advantages of a group sum to 0, and permuting rollouts permutes advantages."""
    rng = random.Random(seed)
    rewards = [rng.choice([0, 1 / 3, 0.1 * 3, 1, 2, rng.random() * 7]) for _ in range(rng.randint(2, 9))]
    truth = rng.choice([max(rewards), max(rewards) - 1e-7, rng.random() * 8])
    found = visurf(group(rewards, truth))
    assert found[-1] >= 0
    assert sum(found) == pytest.approx(0, abs=1e-9)
    assert (found[-1] == 0) == (max(rewards) >= truth - 1e-6)
    order = rng.sample(range(len(rewards)), len(rewards))
    again = visurf(group([rewards[i] for i in order], truth))
    assert again[:-1] == pytest.approx([found[i] for i in order], abs=1e-12)


@pytest.mark.parametrize(
    ("fields", "rewards", "want"),
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
def test_group_advantage(fields, rewards, want):
    digits = 5e-5 if len(rewards) == 8 else 5e-6
    assert credit(GroupAdvantage(**fields), group(rewards))[0] == pytest.approx(want, abs=digits)


def test_unscorable_replies_are_left_out():
    found = credit(GroupAdvantage(), group([1, NAN, 0, 0, 1]))[0]
    assert found == pytest.approx([0.866024, 0, -0.866024, -0.866024, 0.866024], abs=1e-6)
    assert credit(LeaveOneOut(), group([1, NAN, 0]))[0] == [1, 0, -1]
    assert credit(LeaveOneOut(), group([1, NAN]))[0] == [0, 0]


def test_what_is_logged_leaves_the_truth_out():
    context = FakeContext()
    credit(GroupAdvantage(), group([1, 1], 3), group([0, NAN, 2], 2), context=context)
    assert context.mean("reward/zero_std_groups") == 0.5
    assert context.logs["advantage/unscorable"] == [0, 0, 0, 1, 0]
    assert context.mean("advantage/group_std") == pytest.approx(math.sqrt(2) / 2)
    assert context.logs["truth/active"] == [1, 1]


def test_a_missing_reward_names_the_transform_that_makes_it():
    bare = FakeContext().generate([Sample(uid="x", prompt=())], 2, Sampling(max_tokens=4))[0]
    with pytest.raises(ColumnError, match=r"'x'.*'reward'.*Score"):
        credit(GroupAdvantage(), bare)


def test_leave_one_out():
    want = [0.666667, -0.666667, -0.666667, 0.666667]
    assert credit(LeaveOneOut(), group([1, 0, 0, 1]))[0] == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize(
    ("variance", "high", "low"), [("population", 1.527525, -0.654654), ("sample", 1.449138, -0.621059)]
)
def test_reinforce_plus_plus(variance, high, low):
    found = credit(GlobalWhiten(variance=variance), group([1, 0, 0, 1], lengths=[2, 4, 3, 1]))[0]
    assert found == pytest.approx([high, low, low, high], abs=1e-6)


def test_reinforce_plus_plus_baseline_subtracts_the_group_mean_first():
    samples = [group([1, 0], lengths=[2, 2]), group([5, 4], lengths=[2, 2], uid="b")]
    found = credit(GlobalWhiten(baseline=True), *samples)
    assert found[0] == pytest.approx([1, -1])
    assert found[1] == pytest.approx([1, -1])


def test_penalties_and_discount_make_returns_per_token():
    logp: dict[str, Any] = {"old_logp": [[-1.0, -1.0], [-1.0]], "ref_logp": [[-1.5, -2.0], [-1.0]]}
    charged = KLReward(beta=0.1, per_token=True)([group([1, 0], lengths=[2, 1], **logp)], FakeContext())
    assert charged[0].replies[0].columns["kl_penalty"] == pytest.approx([-0.05, -0.1])
    (found,) = GlobalWhiten(penalty=True, gamma=0.5)(charged, FakeContext())
    returns = torch.tensor([-0.05 + 0.5 * 0.9, 0.9, 0.0], dtype=torch.float64)
    want = (returns - returns.mean()) / returns.std(correction=0)
    first, second = (r.columns["advantage"] for r in found.replies)
    assert [*first, *second] == pytest.approx(want.tolist())  # type: ignore[misc]


def test_masked_tokens_do_not_weigh():
    mask: dict[str, Any] = {"mask": [[1.0, 1.0], [1.0, 0.0, 0.0, 0.0]]}
    found = credit(GlobalWhiten(), group([1, 0], lengths=[2, 4], **mask))[0]
    want = credit(GlobalWhiten(), group([1, 0], lengths=[2, 1]))[0]
    assert found == pytest.approx(want)


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
def test_two_ranks_are_one(transform):
    """What a rank sees of the others through `gather` makes its result that of one big rank; so do empty ranks."""
    rng = random.Random(0)

    def make(uid: str) -> Sample:
        scores = [{"a": rng.random(), "b": rng.random()} for _ in range(4)]
        return group([rng.random() for _ in range(4)], uid=uid, scores=scores, lengths=[3, 1, 4, 2])

    samples = [make(uid) for uid in "abcd"]
    whole = credit(transform, *samples)
    for here, there in ((samples[:3], samples[3:]), (samples, []), (samples[:1], samples[1:])):
        first, second = Recorder(), Recorder()
        for _ in range(4):  # each exchange needs the results of the one before
            first, second = Recorder(second.given), Recorder(first.given)
            found = credit(transform, *here, context=first) + credit(transform, *there, context=second)
        assert found == whole


class Recorder(FakeContext):
    """Keeps what it was given, for the other rank's next round."""

    def __init__(self, others: Sequence[list[float]] = ()) -> None:
        super().__init__(others=list(others))
        self.given: list[list[float]] = []

    def gather(self, values: Any) -> list[float]:
        self.given.append(list(values))
        return super().gather(values)


@pytest.fixture(scope="module")
def trl_classes() -> dict[str, type]:
    pytest.importorskip("trl", reason="the numerical reference")
    from trl.trainer.grpo_trainer import GRPOTrainer
    from trl.trainer.rloo_trainer import RLOOTrainer

    return {"grpo": GRPOTrainer, "rloo": RLOOTrainer}


LENGTHS = [3, 7, 1, 5, 2, 6, 4, 4]


def theirs(cls: type, rewards: torch.Tensor, **settings: Any) -> tuple[list[float], dict[str, Any]]:
    made = oracle.rollout(LENGTHS, rewards)
    trainer = oracle.trainer(cls, made, group=4, accumulate=1, **settings)
    return trainer._generate_and_score_completions([{"prompt": ""}] * 8)["advantages"].tolist(), made


def rewards_of(seed: int, functions: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.rand((8, functions), generator=generator, dtype=torch.float64).round(decimals=1)
    rewards[2] = NAN
    return rewards


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_group_advantage_against_trl(trl_classes, scale, seed):
    rewards = rewards_of(seed)
    want, _ = theirs(trl_classes["grpo"], rewards, scale_rewards=scale)
    r = rewards[:, 0].tolist()
    found = credit(GroupAdvantage(scale=scale, eps=1e-4), group(r[:4]), group(r[4:], uid="b"))
    assert found[0] + found[1] == pytest.approx(want, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_components_against_trl(trl_classes, seed):
    rewards = rewards_of(seed, functions=2)
    rewards[5, 0] = NAN
    weights = torch.tensor([1.0, 0.3], dtype=torch.float64)
    want, _ = theirs(
        trl_classes["grpo"], rewards, multi_objective_aggregation="normalize_then_sum", reward_weights=weights
    )
    scores = [{name: v for name, v in zip("ab", row, strict=True) if v == v} for row in rewards.tolist()]
    r = [NAN if i == 2 else 1.0 for i in range(8)]
    samples = [group(r[:4], scores=scores[:4]), group(r[4:], scores=scores[4:], uid="b")]
    found = credit(GroupAdvantage(components={"a": 1.0, "b": 0.3}, eps=1e-4), *samples)
    assert found[0] + found[1] == pytest.approx(want, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_leave_one_out_against_trl(trl_classes, normalize, beta):
    rewards = rewards_of(7)
    settings = {"beta": beta, "normalize_advantages": normalize, "reward_clip_range": (0.2, 0.7)}
    want, made = theirs(trl_classes["rloo"], rewards, **settings)
    logp: dict[str, Any] = {
        f"{name}_logp": [row[m].tolist() for row, m in zip(made[name], made["mask"], strict=True)]
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
    found = credit(LeaveOneOut(normalize=normalize), *samples)
    assert found[0] + found[1] == pytest.approx(want, rel=1e-5, abs=1e-7)
