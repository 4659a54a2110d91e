"""Rewards about time: the tables of the method card, word for word, and where the released code goes wrong."""

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
WHEN = Sample("g", (Part("text", "when?"),), truth=TRUTH)


def say(text: str) -> Reply:
    return Reply((Part("text", text, "assistant"),))


def when(start: str, end: str) -> str:
    return f'<think>hm</think><answer>{{"start_time": "{start}", "end_time": "{end}"}}</answer>'


TABLE = [
    (when("5.0", "15.0"), 1, 0.3333, 0.6667),
    ('<think>a\nb</think>\n<answer>\n{"start_time": "10",\n "end_time": "20"}\n</answer>', 1, 1, 1.0),
    ('<think>hm</think><answer>{"start_time": 10, "end_time": 20}</answer>', 0, 1, 0.5),
    ('<answer>{"start_time": "10", "end_time": "20"}</answer>', 0, 1, 0.5),
    ('<think>hm</think><answer>{"end_time": "20", "start_time": "10"}</answer>', 0, 1, 0.5),
    (when("20", "10"), 1, 0, 0.5),
    (when("0", "30"), 1, 0.3333, 0.6667),
    (when("-5", "20"), 0, 0.4, 0.2),
    (when("10", "20") + " ", 0, 1, 0.5),
    (when("40", "50"), 1, 0, 0.5),
]


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize(("text", "form", "overlap", "reward"), TABLE)
def test_the_table_of_the_released_reward(
    text: str, form: float, overlap: float, reward: float, released: bool
) -> None:
    dual = span.DualReward(released=released)
    terms = {name: term(WHEN, say(text)) for name, term in dual.terms().items()}
    assert terms == {"format": form, "semantic": None, "temporal": pytest.approx(overlap, abs=5e-5)}
    assert dual(WHEN, say(text)) == pytest.approx(reward, abs=5e-5)


def test_advantages_of_the_group_example() -> None:
    rewards = [0.5 + 0.5 * v for v in (0, 1 / 3, 0.6, 1)]
    mean, std = statistics.mean(rewards), statistics.stdev(rewards)
    found = [(r - mean) / (std + 1e-6) for r in rewards]
    assert found == pytest.approx([-1.1428, -0.3546, 0.2758, 1.2216], abs=1e-4)


def test_a_number_with_two_points_is_a_time_to_the_released_format_alone() -> None:
    reply = say(when("1.2.3", "15"))
    assert (span.span_format(WHEN, reply), span.released_format(WHEN, reply), span.overlap(WHEN, reply)) == (0, 1, 0)


@pytest.mark.parametrize(("a", "b"), [((0, 4), (2, 8)), ((0, 1), (2, 3)), ((1, 2), (0, 9)), ((5, 5), (5, 5))])
def test_tiou_is_symmetric_and_free_of_scale(a: tuple[float, float], b: tuple[float, float]) -> None:
    assert span.tiou(a, b) == span.tiou(b, a)
    scaled = [[v / 30 for v in s] for s in (a, b)]
    assert span.tiou(*scaled) == pytest.approx(span.tiou(a, b))
    union = (a[1] - a[0]) + (b[1] - b[0]) - max(0, min(a[1], b[1]) - max(a[0], b[0]))
    both = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    assert span.tiou(a, b) == pytest.approx(both / union if union else 0)


def test_tiou_of_spans_that_touch_or_have_no_length_is_nothing() -> None:
    assert span.tiou((0, 2), (2, 4)) == 0
    assert span.tiou((12, 12), (10, 20)) == 0
    assert span.tiou((10, 20), (10, 20)) == 1


GROUNDED = {"duration": 30.0, "spans": [[10.0, 20.0], [25.0, 30.0]], "answer": "B", "options": ["a cat", "A dog", "no"]}


def both(answer: str, start: str = "10", end: str = "20") -> str:
    inside = json.dumps({"answer": answer, "start_time": start, "end_time": end})
    return f"<think>hm</think><answer>{inside}</answer>"


@pytest.mark.parametrize(
    ("change", "text", "reward"),
    [
        ({}, both("B"), 1.0),
        ({}, both("A"), 2 / 3),
        ({}, both("B", "26", "31"), 1 / 3 + 1 / 3 + (4 / 6) / 3),
        ({}, both("B", "40", "50"), 2 / 3),
        ({"semantic": False}, both("A"), 1.0),
        ({"temporal": False}, both("B", "40", "50"), 1.0),
        ({"temporal": False}, both("A"), 0.5),
        ({"grounded": (0.0, 0.2, 0.8)}, both("A"), 0.8),
        ({}, "", 0.0),
    ],
)
def test_the_dual_reward_of_grounded_answers(change: Mapping[str, Any], text: str, reward: float) -> None:
    sample = Sample("q", (), truth=GROUNDED)
    assert span.DualReward.model_validate(dict(change))(sample, say(text)) == pytest.approx(reward)


def test_each_kind_of_row_has_its_weights() -> None:
    asked = Sample("q", (), truth={**TRUTH, "spans": [], "answer": "7"})
    assert [span.question_type(s) for s in (asked, WHEN, Sample("q", (), truth=GROUNDED))] == [
        "qa",
        "grounding",
        "grounded",
    ]
    good, bad, bare = (say(f"<think>x</think><answer>{a}</answer>") for a in ("7", "8", ""))
    assert [span.DualReward()(asked, r) for r in (good, bad, bare, say("<answer>7</answer>"))] == [1.0, 0.5, 0.5, 0.5]
    assert span.DualReward(semantic=False)(asked, bad) == 1.0, "only the format is left"
    assert span.DualReward(temporal=False)(WHEN, say(when("40", "50"))) == 1.0
    assert span.DualReward(qa=(0, 1, 0), semantic=False)(asked, good) is None, "nothing is left to reward"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("B", 1), ("b", 1), ("(B)", 1), ("B.", 1), ("(B) whatever", 1), ("B. a dog", 1), ("a dog", 1), ("A DOG", 1),
        ("A", 0), ("A dog", 1), ("a cat", 0), ("BB", 0), ("D", 0), ("", 0), ("not B", 0),
    ],
)  # fmt: skip
def test_options_are_named_by_text_or_letter(said: str, found: float) -> None:
    for gold in ("B", "A dog"):
        sample = Sample("q", (), truth={**GROUNDED, "spans": [], "answer": gold})
        assert span.answer_accuracy(sample, say(f"<answer>{said}</answer>")) == found
        assert span.answer_accuracy(sample, say(f"<answer>{json.dumps({'answer': said})}</answer>")) == found


@pytest.mark.parametrize(
    ("said", "found"),
    [('"(B)"', 1), ('"B"', 1), ("B", 1), ('{"answer": "B"}', 1), ('"(B) text"', 0), ("(B)", 0), ("b", 0)],
)
def test_the_released_way_to_read_an_option(said: str, found: float) -> None:
    sample = Sample("q", (), truth={**GROUNDED, "spans": []})
    assert span.released_answer_accuracy(sample, say(f"<answer>{said}</answer>")) == found
    assert span.released_answer_accuracy(WHEN, say("<answer>B</answer>")) is None


@pytest.mark.parametrize(
    ("start", "end", "iou", "iop"),
    [(5, 15, 0.3333, 0.5), (12, 14, 0.2, 1), (0, 40, 0.25, 0.25), (30, 40, 0, 0), (15, 15, 0, 1), (15, 5, 0.3333, 0.5)],
)
def test_iou_and_iop_of_the_official_scripts(start: float, end: float, iou: float, iop: float) -> None:
    reply = say(when(str(start), str(end)))
    assert span.iou(WHEN, reply) == pytest.approx(iou, abs=5e-5)
    assert span.iop(WHEN, reply) == pytest.approx(iop)


def scored(sample: Sample, text: str) -> Sample:
    values = {name: measure(sample, say(text)) for name, measure in span.measures.items()}
    reply = Reply(say(text).parts, scores={name: value for name, value in values.items() if value is not None})
    return Sample(sample.uid, sample.prompt, (reply,), sample.truth)


def test_the_summary_of_four_overlaps() -> None:
    truth = {**TRUTH, "duration": 100.0, "spans": [[0.0, 100.0]]}
    sample = Sample("s", (), truth=truth)
    said = [when("0", str(100 * v)) for v in (1 / 3, 0.5, 0.72)] + ["none"]
    found = span.span_summary([scored(sample, text) for text in said])
    assert found["miou"] == pytest.approx(38.8333, abs=1e-4)
    assert (found["r@0.3"], found["r@0.5"], found["r@0.7"]) == (75, 50, 25)
    assert found["length"] == pytest.approx(100 * (1 / 3 + 0.5 + 0.72) / 3)
    assert (found["unread"], found["format"], found["score"]) == (25, 75, found["miou"])
    assert "accuracy" not in found


def test_the_summary_of_all_kinds() -> None:
    asked = Sample("a", (), truth={**TRUTH, "spans": [], "answer": "7"})
    grounded = Sample("b", (), truth=GROUNDED)
    rows = [scored(asked, "<think></think><answer>7</answer>"), scored(WHEN, when("0", "30"))]
    rows += [scored(grounded, both("B", "12", "14")), scored(grounded, both("A")), scored(grounded, "")]
    found = span.span_summary(rows)
    assert found["accuracy"] == 50
    assert found["qa_accuracy"] == 100
    assert found["grounded_accuracy"] == pytest.approx(100 / 3)
    assert found["acc_gqa"] == pytest.approx(100 / 3)
    assert found["grounding_miou"] == pytest.approx(100 / 3)
    assert found["miou"] == pytest.approx(100 * (1 / 3 + 0.2 + 1) / 4)
    assert found["score"] == pytest.approx(100 * (1 + 1 / 3 + 0.6 + 0.5 + 0) / 5)
    assert found["unread"] == 20


@pytest.mark.parametrize(
    "text",
    ["<answer>{",
     '<answer>{"start_time": 1e999, "end_time": 2}</answer>', "<answer>[1, 2]</answer>", "<answer>NaN</answer>",
     '<answer>{"start_time": true, "end_time": 2}</answer>', '<answer>{"start_time": "NaN", "end_time": "2"}</answer>',
     '<answer>{"start_time": null, "end_time": {}}</answer>', f'<answer>{"[" * 100_000}</answer>'],
)  # fmt: skip
def test_what_is_no_span_is_none(text: str) -> None:
    assert span.parse(text).span is None
    assert span.overlap(WHEN, say(text)) == 0
    assert span.parse_failure(WHEN, say(text)) == 1
    assert span.relative_length(WHEN, say(text)) is None


def test_gold_and_predicted_spans_are_marked_over_the_video() -> None:
    sample = Sample("m", (Part("image", None), Part("text", "?"), Part("video", None)), truth=GROUNDED)
    gold = marks(sample, None)
    assert [(mark.shape, mark.medium) for mark in gold] == [("span", 1)] * 2
    assert [mark.at for mark in gold] == [pytest.approx((1 / 3, 2 / 3)), pytest.approx((25 / 30, 1.0))]
    assert marks(sample, say(both("B", "15", "60"))) == [Mark("span", (0.5, 1.0), 1)]
    assert marks(sample, say("<answer>B</answer>")) == []
    assert marks(Sample("t", (), truth="words"), None) == []
