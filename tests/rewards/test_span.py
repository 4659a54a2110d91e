"""Rewards of time spans: the published table, and bugs of the released code."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from typing import Any

import pytest

from mmpost.core.annotations import Mark, marks
from mmpost.rewards import span
from mmpost.types import Part, Reply, Sample

TRUTH = {"duration": 30.0, "spans": [[10.0, 20.0]], "answer": None, "options": []}
GROUNDING = Sample("g", (Part("text", "when?"),), truth=TRUTH)


def make_reply(text: str) -> Reply:
    return Reply((Part("text", text, "assistant"),))


def span_answer(start: str, end: str) -> str:
    return f'<think>hm</think><answer>{{"start_time": "{start}", "end_time": "{end}"}}</answer>'


TABLE = [
    (span_answer("5.0", "15.0"), 1, 0.3333, 0.6667),
    ('<think>a\nb</think>\n<answer>\n{"start_time": "10",\n "end_time": "20"}\n</answer>', 1, 1, 1.0),
    ('<think>hm</think><answer>{"start_time": 10, "end_time": 20}</answer>', 0, 1, 0.5),
    ('<answer>{"start_time": "10", "end_time": "20"}</answer>', 0, 1, 0.5),
    ('<think>hm</think><answer>{"end_time": "20", "start_time": "10"}</answer>', 0, 1, 0.5),
    (span_answer("20", "10"), 1, 0, 0.5),
    (span_answer("0", "30"), 1, 0.3333, 0.6667),
    (span_answer("-5", "20"), 0, 0.4, 0.2),
    (span_answer("10", "20") + " ", 0, 1, 0.5),
    (span_answer("40", "50"), 1, 0, 0.5),
]


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize(("text", "form", "overlap", "reward"), TABLE)
def test_the_table_of_the_released_reward(
    text: str, form: float, overlap: float, reward: float, released: bool
) -> None:
    dual = span.DualReward(released=released)
    terms = {name: term(GROUNDING, make_reply(text)) for name, term in dual.terms().items()}
    assert terms == {"format": form, "semantic": None, "temporal": pytest.approx(overlap, abs=5e-5)}
    assert dual(GROUNDING, make_reply(text)) == pytest.approx(reward, abs=5e-5)


def test_advantages_of_the_group_example() -> None:
    rewards = [0.5 + 0.5 * v for v in (0, 1 / 3, 0.6, 1)]
    mean, std = statistics.mean(rewards), statistics.stdev(rewards)
    advantages = [(r - mean) / (std + 1e-6) for r in rewards]
    assert advantages == pytest.approx([-1.1428, -0.3546, 0.2758, 1.2216], abs=1e-4)


def test_only_the_released_format_accepts_an_empty_thought() -> None:
    empty = make_reply(span_answer("1", "15").replace("hm", " "))
    assert (span.span_format(GROUNDING, empty), span.released_format(GROUNDING, empty)) == (0, 1)


def test_only_the_released_format_accepts_numbers_with_two_points() -> None:
    reply = make_reply(span_answer("1.2.3", "15"))
    assert (
        span.span_format(GROUNDING, reply),
        span.released_format(GROUNDING, reply),
        span.overlap(GROUNDING, reply),
    ) == (0, 1, 0)


@pytest.mark.parametrize(("a", "b"), [((0, 4), (2, 8)), ((0, 1), (2, 3)), ((1, 2), (0, 9)), ((5, 5), (5, 5))])
def test_tiou_is_symmetric_and_scale_invariant(a: tuple[float, float], b: tuple[float, float]) -> None:
    assert span.tiou(a, b) == span.tiou(b, a)
    scaled = [[v / 30 for v in s] for s in (a, b)]
    assert span.tiou(*scaled) == pytest.approx(span.tiou(a, b))
    union = (a[1] - a[0]) + (b[1] - b[0]) - max(0, min(a[1], b[1]) - max(a[0], b[0]))
    intersection = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    assert span.tiou(a, b) == pytest.approx(intersection / union if union else 0)


def test_tiou_of_touching_or_empty_spans_is_zero() -> None:
    assert span.tiou((0, 2), (2, 4)) == 0
    assert span.tiou((12, 12), (10, 20)) == 0
    assert span.tiou((10, 20), (10, 20)) == 1


GROUNDED = {"duration": 30.0, "spans": [[10.0, 20.0], [25.0, 30.0]], "answer": "B", "options": ["a cat", "A dog", "no"]}


def grounded_answer(answer: str, start: str = "10", end: str = "20") -> str:
    inside = json.dumps({"answer": answer, "start_time": start, "end_time": end})
    return f"<think>hm</think><answer>{inside}</answer>"


@pytest.mark.parametrize(
    ("change", "text", "reward"),
    [
        ({}, grounded_answer("B"), 1.0),
        ({}, grounded_answer("A"), 2 / 3),
        ({}, grounded_answer("B", "26", "31"), 1 / 3 + 1 / 3 + (4 / 6) / 3),
        ({}, grounded_answer("B", "40", "50"), 2 / 3),
        ({"semantic": False}, grounded_answer("A"), 1.0),
        ({"temporal": False}, grounded_answer("B", "40", "50"), 1.0),
        ({"temporal": False}, grounded_answer("A"), 0.5),
        ({"grounded": (0.0, 0.2, 0.8)}, grounded_answer("A"), 0.8),
        ({}, "", 0.0),
    ],
)
def test_the_dual_reward_of_grounded_answers(change: Mapping[str, Any], text: str, reward: float) -> None:
    sample = Sample("q", (), truth=GROUNDED)
    assert span.DualReward.model_validate(dict(change))(sample, make_reply(text)) == pytest.approx(reward)


def test_each_row_type_has_its_weights() -> None:
    question = Sample("q", (), truth={**TRUTH, "spans": [], "answer": "7"})
    assert [span.question_type(s) for s in (question, GROUNDING, Sample("q", (), truth=GROUNDED))] == [
        "qa",
        "grounding",
        "grounded",
    ]
    good, bad, bare = (make_reply(f"<think>x</think><answer>{a}</answer>") for a in ("7", "8", ""))
    assert [span.DualReward()(question, r) for r in (good, bad, bare, make_reply("<answer>7</answer>"))] == [
        1.0,
        0.5,
        0.5,
        0.5,
    ]
    assert span.DualReward(semantic=False)(question, bad) == 1.0, "only the format term remains"
    assert span.DualReward(temporal=False)(GROUNDING, make_reply(span_answer("40", "50"))) == 1.0
    assert span.DualReward(qa=(0, 1, 0), semantic=False)(question, good) is None, "no term remains"


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("B", 1), ("b", 1), ("(B)", 1), ("B.", 1), ("(B) whatever", 1), ("B. a dog", 1), ("a dog", 1), ("A DOG", 1),
        ("A", 0), ("A dog", 1), ("a cat", 0), ("BB", 0), ("D", 0), ("", 0), ("not B", 0),
    ],
)  # fmt: skip
def test_options_are_named_by_text_or_letter(answer: str, score: float) -> None:
    for gold in ("B", "A dog"):
        sample = Sample("q", (), truth={**GROUNDED, "spans": [], "answer": gold})
        assert span.answer_accuracy(sample, make_reply(f"<answer>{answer}</answer>")) == score
        assert span.answer_accuracy(sample, make_reply(f"<answer>{json.dumps({'answer': answer})}</answer>")) == score


@pytest.mark.parametrize(
    ("answer", "score"),
    [('"(B)"', 1), ('"B"', 1), ("B", 1), ('{"answer": "B"}', 1), ('"(B) text"', 0), ("(B)", 0), ("b", 0)],
)
def test_the_released_option_parser(answer: str, score: float) -> None:
    sample = Sample("q", (), truth={**GROUNDED, "spans": []})
    assert span.released_answer_accuracy(sample, make_reply(f"<answer>{answer}</answer>")) == score
    assert span.released_answer_accuracy(GROUNDING, make_reply("<answer>B</answer>")) is None


@pytest.mark.parametrize(
    ("start", "end", "iou", "iop"),
    [(5, 15, 0.3333, 0.5), (12, 14, 0.2, 1), (0, 40, 0.25, 0.25), (30, 40, 0, 0), (15, 15, 0, 1), (15, 5, 0.3333, 0.5)],
)
def test_iou_and_iop_of_the_official_scripts(start: float, end: float, iou: float, iop: float) -> None:
    reply = make_reply(span_answer(str(start), str(end)))
    assert span.iou(GROUNDING, reply) == pytest.approx(iou, abs=5e-5)
    assert span.iop(GROUNDING, reply) == pytest.approx(iop)


def scored(sample: Sample, text: str) -> Sample:
    values = {name: measure(sample, make_reply(text)) for name, measure in span.measures.items()}
    reply = Reply(make_reply(text).parts, scores={name: value for name, value in values.items() if value is not None})
    return Sample(sample.uid, sample.prompt, (reply,), sample.truth)


def test_the_summary_of_four_overlaps() -> None:
    truth = {**TRUTH, "duration": 100.0, "spans": [[0.0, 100.0]]}
    sample = Sample("s", (), truth=truth)
    texts = [span_answer("0", str(100 * v)) for v in (1 / 3, 0.5, 0.72)] + ["none"]
    summary = span.span_summary([scored(sample, text) for text in texts])
    assert summary["miou"] == pytest.approx(38.8333, abs=1e-4)
    assert (summary["r@0.3"], summary["r@0.5"], summary["r@0.7"]) == (75, 50, 25)
    assert summary["length"] == pytest.approx(100 * (1 / 3 + 0.5 + 0.72) / 3)
    assert (summary["unread"], summary["format"], summary["score"]) == (25, 75, summary["miou"])
    assert "accuracy" not in summary


def test_the_summary_of_all_row_types() -> None:
    question = Sample("a", (), truth={**TRUTH, "spans": [], "answer": "7"})
    grounded = Sample("b", (), truth=GROUNDED)
    rows = [scored(question, "<think></think><answer>7</answer>"), scored(GROUNDING, span_answer("0", "30"))]
    rows += [
        scored(grounded, grounded_answer("B", "12", "14")),
        scored(grounded, grounded_answer("A")),
        scored(grounded, ""),
    ]
    summary = span.span_summary(rows)
    assert summary["accuracy"] == 50
    assert summary["qa_accuracy"] == 100
    assert summary["grounded_accuracy"] == pytest.approx(100 / 3)
    assert summary["acc_gqa"] == pytest.approx(100 / 3)
    assert summary["grounding_miou"] == pytest.approx(100 / 3)
    assert summary["miou"] == pytest.approx(100 * (1 / 3 + 0.2 + 1) / 4)
    assert summary["score"] == pytest.approx(100 * (1 + 1 / 3 + 0.6 + 0.5 + 0) / 5)
    assert summary["unread"] == 20


@pytest.mark.parametrize(
    "text",
    ["<answer>{",
     '<answer>{"start_time": 1e999, "end_time": 2}</answer>', "<answer>[1, 2]</answer>", "<answer>NaN</answer>",
     '<answer>{"start_time": true, "end_time": 2}</answer>', '<answer>{"start_time": "NaN", "end_time": "2"}</answer>',
     '<answer>{"start_time": null, "end_time": {}}</answer>', f'<answer>{"[" * 100_000}</answer>'],
)  # fmt: skip
def test_an_unparseable_span_is_none(text: str) -> None:
    assert span.parse(text).span is None
    assert span.overlap(GROUNDING, make_reply(text)) == 0
    assert span.parse_failure(GROUNDING, make_reply(text)) == 1
    assert span.relative_length(GROUNDING, make_reply(text)) is None


def test_gold_and_predicted_spans_are_marked_over_the_video() -> None:
    sample = Sample("m", (Part("image", None), Part("text", "?"), Part("video", None)), truth=GROUNDED)
    gold = marks(sample, None)
    assert [(mark.shape, mark.medium) for mark in gold] == [("span", 1)] * 2
    assert [mark.at for mark in gold] == [pytest.approx((1 / 3, 2 / 3)), pytest.approx((25 / 30, 1.0))]
    assert marks(sample, make_reply(grounded_answer("B", "15", "60"))) == [Mark("span", (0.5, 1.0), 1)]
    assert marks(sample, make_reply("<answer>B</answer>")) == []
    assert marks(Sample("t", (), truth="words"), None) == []
