"""TempCompass: every quirk of the official rule, and its groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpost.benchmarks.benchmark import benchmark
from mmpost.benchmarks.scoring import evaluate
from tests.benchmarks.by_rule import official, strict
from tests.benchmarks.small_benches import small, write_questions

CHOICE = {"task": "multi-choice", "options": ["A. running", "B. jumping", "C.Both at once"]}
MATCHING = {"task": "caption_matching", "options": ["Caption A: He says: jump.", "Caption B: He runs."]}
NUMBERED = {"task": "caption_matching", "options": ["Option 1: He jumps.", "Option 2: He runs."]}


@pytest.mark.parametrize(
    ("text", "by_script", "strictly"),
    [
        ("B. jumping", 1, 1),
        ("B", 1, 1),
        ("B) jumping", 1, 1),
        ("B. running", 1, 1),
        ("B</s>", 1, 0),
        ("(B)", 0, 1),
        ("jumping", 0, 1),
        ("The answer is B", 0, 1),
        ("b", 0, 1),
        ("A", 0, 0),
        ("Both of it", 0, 0),
        ("", 0, 0),
    ],
)
def test_letters_of_tempcompass(text: str, by_script: float, strictly: float) -> None:
    assert official("tempcompass", "B. jumping", text, **CHOICE) == by_script
    assert strict("tempcompass", "B. jumping", text, **CHOICE) == strictly


def test_words_of_tempcompass_that_begin_with_yes_or_no() -> None:
    replies = ["no", "No.", "Nothing moves", "Now it does", "It does not", "none", ""]
    meta = {"task": "yes_no", "options": ["yes", "no"]}
    assert [official("tempcompass", "no", text, **meta) for text in replies] == [1, 1, 1, 1, 0, 1, 0]
    assert [strict("tempcompass", "no", text, **meta) for text in replies] == [1, 1, 0, 0, 0, 0, 0]


def test_captions_of_tempcompass() -> None:
    replies = ["Caption A", "A", "A.", "Caption A.", "Caption A: He says: jump.", "He says", "He says: jump.", "B", ""]
    truth = "Caption A: He says: jump."
    assert [official("tempcompass", truth, text, **MATCHING) for text in replies] == [1, 1, 1, 1, 1, 1, 0, 0, 0]
    assert [strict("tempcompass", truth, text, **MATCHING) for text in replies] == [1, 1, 1, 1, 1, 0, 1, 0, 0]
    replies = ["1", "Option 1", "(1) He jumps.", "He jumps.", "Answer: 1", "2"]
    assert [official("tempcompass", "Option 1: He jumps.", text, **NUMBERED) for text in replies] == [1, 1, 1, 1, 0, 0]
    assert [strict("tempcompass", "Option 1: He jumps.", text, **NUMBERED) for text in replies] == [1, 1, 0, 1, 1, 0]


def test_groups_of_tempcompass(tmp_path: Path) -> None:
    write_questions("tempcompass", tmp_path / "tempcompass")
    bench = benchmark("tempcompass")
    samples = list(bench.rows(bench.paths(tmp_path, "tempcompass")))
    replies = {s.uid: small("tempcompass").gold(s) if s.meta["task"] == "yes_no" else "" for s in samples}
    found = {
        name: estimate["value"] for name, estimate in evaluate(bench, samples, replies, "tempcompass").official.items()
    }
    assert found == {
        **{"accuracy": 0.4, "accuracy/yes_no": 1, "accuracy/multi-choice": 0, "accuracy/caption_matching": 0},
        **{"accuracy/yes_no/action": 1, "accuracy/yes_no/coarse-grained action": 1, "accuracy/yes_no/order": 1},
        **{"accuracy/multi-choice/action": 0, "accuracy/multi-choice/coarse-grained action": 0},
        "accuracy/caption_matching/order": 0,
    }
