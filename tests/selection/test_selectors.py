"""Which samples are worth training on: the checks of the methods' cards in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from mmpost.errors import ConfigError
from mmpost.objectives.policy import PolicyLoss
from mmpost.selection.selectors import Difficulty, InstanceFilter, VarianceSelection
from mmpost.transforms.advantage import GroupAdvantage
from mmpost.transforms.score import Score
from mmpost.types import Outputs, Part, Reply, Sample, SampleRecord
from tests.objectives.ragged import batch, total
from tests.transforms.fakes import FakeContext, column, group


def measured(selector: Any, samples: Sequence[Sample], lost: Sequence[str] = ()) -> list[SampleRecord]:
    """What a stage would record."""
    entries = [
        SampleRecord(s.uid, i, s.columns)
        for i, s in enumerate(selector([s for s in samples if s.uid not in lost], context()))
    ]
    return [
        *entries,
        *(SampleRecord(uid, len(entries) + i, drop_reason="cannot be read") for i, uid in enumerate(lost)),
    ]


def context() -> FakeContext:
    return FakeContext()


def kept(selector: Any, samples: Sequence[Sample], lost: Sequence[str] = ()) -> list[str]:
    verdicts = selector.finalize(measured(selector, samples, lost))
    assert set(verdicts) == {s.uid for s in samples} | set(lost)
    return [uid for uid, columns in verdicts.items() if columns["kept"]]


def right(counts: Sequence[int], k: int = 8) -> list[Sample]:
    return [group([1.0] * n + [0.0] * (k - n), uid=str(i)) for i, n in enumerate(counts)]


COUNTS = right([0, 1, 8, 4, 0])


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, ["1", "2", "3"]),
        ({"max_correct": 7}, ["1", "3"]),
        ({"min_correct": 2}, ["2", "3"]),
        ({"min_correct": 0}, ["0", "1", "2", "3", "4"]),
    ],
)
def test_a_sample_that_is_never_right_is_dropped(fields: dict[str, int], wanted: list[str]) -> None:
    assert kept(InstanceFilter.model_validate({"right": 0.9, **fields}), COUNTS) == wanted


def test_what_cannot_be_read_is_never_right_and_never_kept() -> None:
    found = measured(InstanceFilter(right=0.9, min_correct=0), COUNTS, lost=["3"])
    verdicts = InstanceFilter(right=0.9, min_correct=0).finalize(found)
    assert [e.uid for e in found if e.drop_reason] == ["3"]
    assert verdicts["3"] == {"kept": 0.0}
    assert verdicts["4"] == {"kept": 1.0}


def test_bounds_that_keep_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="max_correct=1 must be at least min_correct=2"):
        InstanceFilter(min_correct=2, max_correct=1)


def boxed(text: str, truth: str) -> float:
    """0.9 for what stands in the last box, with braces inside it, 0.1 for a thought before it."""
    place = text.rfind(r"\boxed{")
    inner = text[place + 7 : text.rfind("}")] if place >= 0 else ""
    same = inner == truth or (inner == r"\frac{1}{2}" and truth == "1/2")
    return 0.9 * same + 0.1 * ("</think>" in text and place > text.find("</think>"))


@pytest.mark.parametrize(
    ("text", "truth", "good"),
    [
        (r"<think>t</think>\boxed{5}", "5", True),
        (r"<think>t</think>The answer is \boxed{5}", "5", True),
        (r"<think>t</think>\boxed{\frac{1}{2}}", "1/2", True),
        (r"<think>t</think>\boxed{6}", "5", False),
        ("5", "5", False),
    ],
)
def test_the_judge_is_the_reward_of_the_training(text: str, truth: str, good: bool) -> None:
    reply = Reply((Part("text", text, "assistant"),), "policy", (1, 2))
    sample = Sample("a", (Part("text", "?"),), (reply,), truth)
    score = Score(rewards={"boxed": lambda sample, reply: boxed(reply.text, sample.truth)})
    [scored] = score([sample], context())
    assert (column(scored, "reward")[0] >= 0.9) == good
    assert bool(kept(InstanceFilter(right=0.9), [scored])) == good
    assert bool(kept(InstanceFilter(score="boxed", right=0.9), [scored])) == good


def test_more_replies_can_only_keep_more() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = (torch.rand(200, 16, generator=generator) < 0.1).double().tolist()
    few, many = ([group(row[:k], uid=str(i)) for i, row in enumerate(draws)] for k in (8, 16))
    first, second = (set(kept(InstanceFilter(right=1.0), samples)) for samples in (few, many))
    assert first < second
    assert first == set(kept(InstanceFilter(right=1.0), few))


def test_variance_keeps_what_is_mixed() -> None:
    assert kept(VarianceSelection(right=1.0), COUNTS) == ["1", "3"]


def overlap(uid: str, values: Sequence[float], **more: Sequence[float]) -> Sample:
    scores = [
        {"tiou": v, **{name: other[i] for name, other in more.items()}} for i, v in enumerate(values)
    ]  # one a reply
    return group([0.0] * len(values), uid=uid, scores=scores)


ROWS = [
    overlap("still", [0.5] * 4),
    overlap("wide", [0.0, 1.0, 0.0, 1.0]),
    overlap("narrow", [0.4, 0.6, 0.4, 0.6]),
    overlap("hopeless", [0.0, 0.0, 0.0, 0.2]),
    overlap("solved", [1.0, 1.0, 1.0, 0.7]),
    overlap("middle", [0.2, 0.8, 0.2, 0.8]),
]


def test_continuous_scores_are_ranked_by_their_deviation_within_bounds_of_the_mean() -> None:
    def fields(**more: Any) -> VarianceSelection:
        return VarianceSelection(discrete=(), continuous=("tiou",), **more)

    assert kept(fields(top=0.5), ROWS) == ["wide", "narrow", "middle"]
    assert kept(fields(top=1 / 3), ROWS) == ["wide", "middle"]
    assert kept(fields(top=1.0, means=(0.0, 1.0)), ROWS) == ["wide", "narrow", "hopeless", "solved", "middle"]


def test_rows_are_ranked_among_their_own_kind() -> None:
    """Two kinds: with an overlap alone, and with an answer as well; each has a top half of its own."""
    grounded = [
        overlap("a", [0.45, 0.55], accuracy=[1.0, 1.0]),
        overlap("b", [0.5, 0.5], accuracy=[0.0, 0.0]),
        overlap("c", [0.5, 0.5], accuracy=[0.0, 1.0]),
    ]
    answers = [group([0.0, 0.0], uid=uid, scores=[{"accuracy": x} for x in (0.0, 1.0)]) for uid in ("q",)]
    chosen = VarianceSelection(discrete=("accuracy",), continuous=("tiou",), top=0.4)
    assert kept(chosen, [*ROWS, *grounded, *answers]) == ["wide", "middle", "a", "c", "q"]


def test_a_score_is_one_or_the_other() -> None:
    with pytest.raises(ValueError, match="wanted each score once"):
        VarianceSelection(discrete=("a",), continuous=("a",))
    with pytest.raises(ConfigError, match="needs the lowest reward of a right reply"):
        InstanceFilter()(COUNTS, context())


def test_an_injected_reply_and_one_that_no_reward_applies_to_are_not_counted() -> None:
    [found] = InstanceFilter(right=1.0)([group([math.nan, 0.0], truth=1.0)], context())
    assert found.columns == {"k": 2.0, "n/reward": 1.0, "right/reward": 0.0, "mean/reward": 0.0, "std/reward": 0.0}


def test_the_curriculum_goes_from_easy_to_hard() -> None:
    verdicts = Difficulty().finalize(measured(Difficulty(), COUNTS, lost=["3"]))
    order = sorted((v["order"], uid) for uid, v in verdicts.items() if v["kept"])
    assert [uid for _, uid in order] == ["2", "1", "0", "4"]
    assert verdicts["3"] == {"kept": 0.0}


LENGTHS = [[2, 3, 1], [4, 1, 2], [3, 3, 5], [1, 2, 2]]
REWARDS = [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]


def gradient(groups: Sequence[int], loss: PolicyLoss) -> torch.Tensor:
    """Gradient of weights that all tokens of these groups share."""
    made = [group(REWARDS[g], lengths=LENGTHS[g], uid=str(g)) for g in groups]
    advantages = [a for s in GroupAdvantage()(made, context()) for a in column(s, "advantage")]
    lengths = [n for g in groups for n in LENGTHS[g]]
    weights = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    rows = [torch.randn(sum(LENGTHS[g]), 5, generator=torch.Generator().manual_seed(g)).double() for g in groups]
    logp = torch.cat(rows) @ weights - 1
    reference = [[-1.3] * n for n in lengths]
    of = batch(lengths, groups=[g for g in groups for _ in LENGTHS[g]], advantage=advantages, ref_logp=reference)
    total(loss, [(of, Outputs(logp=logp))]).backward()
    assert weights.grad is not None
    return weights.grad


def test_without_a_penalty_flat_groups_only_scale_the_gradient() -> None:
    rows, tokens = 6 / 12, sum(LENGTHS[0] + LENGTHS[3]) / sum(map(sum, LENGTHS))
    for name, ratio in (("grpo", rows), ("bnpo", tokens)):
        whole, mixed = (
            gradient(groups, PolicyLoss.model_validate({"loss_type": name})) for groups in ([0, 1, 2, 3], [0, 3])
        )
        assert whole.abs().max() > 1e-3
        torch.testing.assert_close(whole, ratio * mixed, rtol=1e-12, atol=1e-15)
        charged, without = (
            gradient(groups, PolicyLoss.model_validate({"loss_type": name, "beta": 0.1}))
            for groups in ([0, 1, 2, 3], [0, 3])
        )
        assert (charged - ratio * without).abs().max() > 1e-4
