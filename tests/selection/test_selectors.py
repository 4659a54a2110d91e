"""Selectors against closed forms from the papers."""

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


def record_measurements(selector: Any, samples: Sequence[Sample], lost: Sequence[str] = ()) -> list[SampleRecord]:
    """The records that a stage would write."""
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


def kept_uids(selector: Any, samples: Sequence[Sample], lost: Sequence[str] = ()) -> list[str]:
    verdicts = selector.finalize(record_measurements(selector, samples, lost))
    assert set(verdicts) == {s.uid for s in samples} | set(lost)
    return [uid for uid, columns in verdicts.items() if columns["kept"]]


def groups_with_correct(counts: Sequence[int], k: int = 8) -> list[Sample]:
    return [group([1.0] * n + [0.0] * (k - n), uid=str(i)) for i, n in enumerate(counts)]


COUNTS = groups_with_correct([0, 1, 8, 4, 0])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["1", "2", "3"]),
        ({"max_correct": 7}, ["1", "3"]),
        ({"min_correct": 2}, ["2", "3"]),
        ({"min_correct": 0}, ["0", "1", "2", "3", "4"]),
    ],
)
def test_a_sample_that_is_never_right_is_dropped(fields: dict[str, int], expected: list[str]) -> None:
    assert kept_uids(InstanceFilter.model_validate({"right": 0.9, **fields}), COUNTS) == expected


def test_unreadable_samples_are_dropped() -> None:
    records = record_measurements(InstanceFilter(right=0.9, min_correct=0), COUNTS, lost=["3"])
    verdicts = InstanceFilter(right=0.9, min_correct=0).finalize(records)
    assert [e.uid for e in records if e.drop_reason] == ["3"]
    assert verdicts["3"] == {"kept": 0.0}
    assert verdicts["4"] == {"kept": 1.0}


def test_bounds_that_keep_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="max_correct=1 must be at least min_correct=2"):
        InstanceFilter(min_correct=2, max_correct=1)


def boxed(text: str, truth: str) -> float:
    """0.9 for a correct answer in the last \\boxed{}, 0.1 for a thought before it."""
    start = text.rfind(r"\boxed{")
    inner = text[start + 7 : text.rfind("}")] if start >= 0 else ""
    is_equal = inner == truth or (inner == r"\frac{1}{2}" and truth == "1/2")
    return 0.9 * is_equal + 0.1 * ("</think>" in text and start > text.find("</think>"))


@pytest.mark.parametrize(
    ("text", "truth", "is_correct"),
    [
        (r"<think>t</think>\boxed{5}", "5", True),
        (r"<think>t</think>The answer is \boxed{5}", "5", True),
        (r"<think>t</think>\boxed{\frac{1}{2}}", "1/2", True),
        (r"<think>t</think>\boxed{6}", "5", False),
        ("5", "5", False),
    ],
)
def test_correctness_uses_the_training_reward(text: str, truth: str, is_correct: bool) -> None:
    reply = Reply((Part("text", text, "assistant"),), "policy", (1, 2))
    sample = Sample("a", (Part("text", "?"),), (reply,), truth)
    score = Score(rewards={"boxed": lambda sample, reply: boxed(reply.text, sample.truth)})
    [scored] = score([sample], context())
    assert (column(scored, "reward")[0] >= 0.9) == is_correct
    assert bool(kept_uids(InstanceFilter(right=0.9), [scored])) == is_correct
    assert bool(kept_uids(InstanceFilter(score="boxed", right=0.9), [scored])) == is_correct


def test_more_replies_never_drop_a_kept_sample() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = (torch.rand(200, 16, generator=generator) < 0.1).double().tolist()
    eight_replies, sixteen_replies = ([group(row[:k], uid=str(i)) for i, row in enumerate(draws)] for k in (8, 16))
    first, second = (set(kept_uids(InstanceFilter(right=1.0), samples)) for samples in (eight_replies, sixteen_replies))
    assert first < second
    assert first == set(kept_uids(InstanceFilter(right=1.0), eight_replies))


def test_variance_keeps_samples_with_mixed_outcomes() -> None:
    assert kept_uids(VarianceSelection(right=1.0), COUNTS) == ["1", "3"]


def overlap(uid: str, values: Sequence[float], **other_scores: Sequence[float]) -> Sample:
    scores = [
        {"tiou": v, **{name: other[i] for name, other in other_scores.items()}} for i, v in enumerate(values)
    ]  # one per reply
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
    def fields(**other_scores: Any) -> VarianceSelection:
        return VarianceSelection(discrete=(), continuous=("tiou",), **other_scores)

    assert kept_uids(fields(top=0.5), ROWS) == ["wide", "narrow", "middle"]
    assert kept_uids(fields(top=1 / 3), ROWS) == ["wide", "middle"]
    assert kept_uids(fields(top=1.0, means=(0.0, 1.0)), ROWS) == ["wide", "narrow", "hopeless", "solved", "middle"]


def test_rows_are_ranked_among_rows_with_the_same_scores() -> None:
    """Rows with an overlap only, and rows with an answer too; each set has its own top fraction."""
    grounded = [
        overlap("a", [0.45, 0.55], accuracy=[1.0, 1.0]),
        overlap("b", [0.5, 0.5], accuracy=[0.0, 0.0]),
        overlap("c", [0.5, 0.5], accuracy=[0.0, 1.0]),
    ]
    answers = [group([0.0, 0.0], uid=uid, scores=[{"accuracy": x} for x in (0.0, 1.0)]) for uid in ("q",)]
    chosen = VarianceSelection(discrete=("accuracy",), continuous=("tiou",), top=0.4)
    assert kept_uids(chosen, [*ROWS, *grounded, *answers]) == ["wide", "middle", "a", "c", "q"]


def test_a_score_is_either_discrete_or_continuous() -> None:
    with pytest.raises(ValueError, match="wanted each score once"):
        VarianceSelection(discrete=("a",), continuous=("a",))
    with pytest.raises(ConfigError, match="needs the minimum reward of a correct reply"):
        InstanceFilter()(COUNTS, context())


def test_injected_and_unscored_replies_are_not_counted() -> None:
    [records] = InstanceFilter(right=1.0)([group([math.nan, 0.0], truth=1.0)], context())
    assert records.columns == {"k": 2.0, "n/reward": 1.0, "right/reward": 0.0, "mean/reward": 0.0, "std/reward": 0.0}


def test_the_curriculum_orders_samples_from_easy_to_hard() -> None:
    verdicts = Difficulty().finalize(record_measurements(Difficulty(), COUNTS, lost=["3"]))
    order = sorted((v["order"], uid) for uid, v in verdicts.items() if v["kept"])
    assert [uid for _, uid in order] == ["2", "1", "0", "4"]
    assert verdicts["3"] == {"kept": 0.0}


LENGTHS = [[2, 3, 1], [4, 1, 2], [3, 3, 5], [1, 2, 2]]
REWARDS = [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]


def gradient(groups: Sequence[int], loss: PolicyLoss) -> torch.Tensor:
    """Gradient of weights shared by all tokens of these groups."""
    samples = [group(REWARDS[g], lengths=LENGTHS[g], uid=str(g)) for g in groups]
    advantages = [a for s in GroupAdvantage()(samples, context()) for a in column(s, "advantage")]
    lengths = [n for g in groups for n in LENGTHS[g]]
    weights = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    rows = [torch.randn(sum(LENGTHS[g]), 5, generator=torch.Generator().manual_seed(g)).double() for g in groups]
    logp = torch.cat(rows) @ weights - 1
    reference = [[-1.3] * n for n in lengths]
    reply_batch = batch(
        lengths, groups=[g for g in groups for _ in LENGTHS[g]], advantage=advantages, ref_logp=reference
    )
    total(loss, [(reply_batch, Outputs(logp=logp))]).backward()
    assert weights.grad is not None
    return weights.grad


def test_without_a_penalty_zero_variance_groups_only_scale_the_gradient() -> None:
    rows, tokens = 6 / 12, sum(LENGTHS[0] + LENGTHS[3]) / sum(map(sum, LENGTHS))
    for name, ratio in (("grpo", rows), ("bnpo", tokens)):
        all_groups, mixed_groups = (
            gradient(groups, PolicyLoss.model_validate({"loss_type": name})) for groups in ([0, 1, 2, 3], [0, 3])
        )
        assert all_groups.abs().max() > 1e-3
        torch.testing.assert_close(all_groups, ratio * mixed_groups, rtol=1e-12, atol=1e-15)
        all_with_penalty, mixed_with_penalty = (
            gradient(groups, PolicyLoss.model_validate({"loss_type": name, "beta": 0.1}))
            for groups in ([0, 1, 2, 3], [0, 3])
        )
        assert (all_with_penalty - ratio * mixed_with_penalty).abs().max() > 1e-4
