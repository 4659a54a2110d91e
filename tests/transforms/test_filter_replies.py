"""Illegal replies: which are kept, and the advantages of those that are."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mmpost.methods.policy_gradient import PolicyGradientTask
from mmpost.rewards.table import table_complete
from mmpost.transforms.advantage import GroupAdvantage
from mmpost.transforms.filter_replies import FilterReplies
from mmpost.transforms.generate import Generate
from mmpost.transforms.score import Score
from mmpost.types import Part, Reply, Sample
from tests.transforms.fakes import FakeContext

REWARDS = [0.9, 0.8, 0.85, 0.8, 0.9, 0.85, 0.0, 0.0]


def replies(texts: list[str], **columns: object) -> Sample:
    made = tuple(Reply((Part("text", text, "assistant"),), "policy", columns=columns) for text in texts)  # type: ignore[arg-type]
    return Sample("s", (Part("text", "table"),), made)


def texts(samples: list[Sample]) -> list[list[str]]:
    return [[reply.text for reply in sample.replies] for sample in samples]


def only_legal(**options: object) -> FilterReplies:
    return FilterReplies(legal=table_complete, **options)  # type: ignore[arg-type]


def test_advantages_of_the_paper() -> None:
    made = replies(["a<nl>"] * 6 + ["cut"] * 2)
    scored = tuple(replace(r, columns={"reward": reward}) for r, reward in zip(made.replies, REWARDS, strict=True))
    group = replace(made, replies=scored)

    def advantages(of: list[Sample]) -> list[float]:
        (done,) = GroupAdvantage(eps=1e-4)(of, FakeContext())
        return [float(reply.columns["advantage"]) for reply in done.replies]  # type: ignore[arg-type]

    assert advantages([group]) == pytest.approx(
        [0.6639, 0.4110, 0.5375, 0.4110, 0.6639, 0.5375, -1.6124, -1.6124], abs=5e-5
    )
    context = FakeContext()
    filtered = only_legal(n=8)([group], context)
    assert advantages(filtered) == pytest.approx([1.1155, -1.1155, 0, -1.1155, 1.1155, 0], abs=5e-5)
    assert context.mean("filter/illegal") == 0.25
    assert context.mean("filter/kept") == 6


def test_the_first_legal_replies_are_kept_in_order() -> None:
    made = replies(["1", "2<nl>", "3<nl>", "4", "5<nl>", "6<nl>"])
    assert texts(only_legal(n=3)([made], FakeContext())) == [["2<nl>", "3<nl>", "5<nl>"]]
    assert texts(only_legal()([made], FakeContext())) == [["2<nl>", "3<nl>", "5<nl>", "6<nl>"]]


def test_illegal_replies_refill_a_group_by_position() -> None:
    made = replies(["cut", "cut", "cut", "2<nl>"])
    assert texts(only_legal(n=3, refill=True)([made], FakeContext())) == [["cut", "cut", "2<nl>"]]


def test_samples_without_legal_replies_are_dropped_and_other_replies_stay() -> None:
    context = FakeContext()
    assert only_legal(n=2)([replies(["cut", "cut"])], context) == []
    assert context.mean("filter/dropped") == 1
    assert only_legal(n=2)([], context) == []
    truth = Reply((Part("text", "truth", "assistant"),), "truth")
    made = replies(["cut", "1<nl>"])
    assert texts(only_legal(n=2)([replace(made, replies=(truth, *made.replies))], context)) == [["truth", "1<nl>"]]


@pytest.mark.parametrize(
    ("probabilities", "is_kept"),
    [([0.999] * 5, False), ([0.5, *[0.999] * 4], False), ([0.999] * 4 + [0.98], True), ([0.999] * 3, True)],
)
def test_loops_are_tails_of_certain_tokens(probabilities: list[float], is_kept: bool) -> None:
    made = replies(["1<nl>"], behaviour_logp=[math.log(p) for p in probabilities])
    assert bool(only_legal(certain_tail=4)([made], FakeContext())) == is_kept


class SomeTask(PolicyGradientTask):
    def stages(self):  # type: ignore[no-untyped-def]
        keep = FilterReplies(legal=table_complete, oversample=1.5)
        yield self.rl_stage("rl", [replies([])], Score(rewards={}), keep=keep)


def test_a_stage_samples_more_than_a_group_has() -> None:
    (stage,) = SomeTask(num_generations=5).stages()
    generate = next(t for t in stage.transforms if isinstance(t, Generate))
    keep = next(t for t in stage.transforms if isinstance(t, FilterReplies))
    assert (generate.n, keep.n) == (8, 5)
    assert stage.transforms.index(keep) == stage.transforms.index(generate) + 1
