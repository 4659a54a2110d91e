"""Single benchmarks: closed forms of their metrics, and every quirk of the official rule."""

from __future__ import annotations

from typing import Any

import pytest

from mmpost.benchmarks.benchmark import Scored, benchmark
from mmpost.benchmarks.estimates import estimates
from mmpost.types import Sample


def official(name: str, truth: Any, text: str, **meta: Any) -> float:
    bench, sample = benchmark(name), Sample("s", (), truth=truth, meta=meta)
    return bench.official.score(sample, bench.official.read(sample, text))


def strict(name: str, truth: Any, text: str, **meta: Any) -> float:
    bench, sample = benchmark(name), Sample("s", (), truth=truth, meta=meta)
    return bench.strict.score(sample, bench.strict.read(sample, text))


def test_pope_of_1200_hits_and_300_errors_of_each_kind() -> None:
    kinds = [("yes", "yes", 1200), ("no", "yes", 300), ("no", "no", 1200), ("yes", "no", 300)]
    scored = []
    for split in ("random", "popular", "adversarial"):
        for truth, said, count in kinds:
            sample = Sample(f"{split}{truth}{said}", (), truth=truth, meta={"split": split})
            scored += [Scored(sample, said, said, float(truth == said))] * count
    found = estimates(benchmark("pope").summary, [[each] for each in scored])
    assert next(iter(found)) == "f1"
    for split in ("random", "popular", "adversarial"):
        values = [found[f"{name}/{split}"]["value"] for name in ("accuracy", "precision", "recall", "f1", "yes")]
        assert values == pytest.approx([0.8, 0.8, 0.8, 0.8, 0.5])
    assert found["f1"]["value"] == pytest.approx(0.8)
    assert found["f1"]["n"] == 9000
    assert found["precision/random"]["n"] == 1500


def test_pope_counts_what_is_neither_as_wrong_but_not_as_yes() -> None:
    sample = Sample("s", (), truth="no", meta={"split": "random"})
    found = estimates(benchmark("pope").summary, [[Scored(sample, "maybe", None, 0.0)]])
    assert found["accuracy/random"]["value"] == found["yes/random"]["value"] == 0


def test_quirks_of_pope() -> None:
    assert official("pope", "yes", "") == 1
    assert strict("pope", "yes", "") == 0
    assert [official("pope", "no", text) for text in ("NO", "No\nnothing", "None. No", "No,")] == [0, 0, 0, 1]
    assert [strict("pope", "no", text) for text in ("NO", "No\nnothing", "None. No", "No,")] == [1, 1, 1, 1]


def test_quirks_of_mmau() -> None:
    woman = {"choices": ["A child", "A woman", "An adult man", "A teenager"]}
    right = ["A woman", "a woman speaking", "(B) A woman"]
    wrong = ["woman", "A woman, not a child", ""]
    assert [official("mmau", "A woman", text, **woman) for text in (*right, *wrong)] == [1, 1, 1, 0, 0, 0]
    order = {"choices": ["Loud then soft", "Soft then loud"]}
    assert official("mmau", "Loud then soft", "Soft then loud", **order) == 1
    assert strict("mmau", "Loud then soft", "Soft then loud", **order) == 0
    assert benchmark("mmau").official.missing == "left out"


WORDS = {"answer_type": "text", "precision": None}


@pytest.mark.parametrize(
    ("reply", "meta", "truth", "by_rule", "strictly"),
    [
        ("", {"choices": ["12", "7"], **WORDS}, "7", 1, 0),
        ("I cannot tell", {"choices": ["yes", "no"], **WORDS}, "no", 1, 0),
        ("Thus, the answer is B (70°).", {"choices": ["60°", "70°"], **WORDS}, "70°", 1, 1),
        ("So the answer is:\n\n(B)", {"choices": ["60°", "70°"], **WORDS}, "70°", 1, 1),
        ("b", {"choices": ["60°", "70°"], **WORDS}, "70°", 0, 1),
        ("14.7", {"choices": None, "answer_type": "integer", "precision": None}, "14", 1, 0),
        ("<answer>1,014</answer> of 7", {"choices": None, "answer_type": "integer", "precision": None}, "1014", 1, 1),
        ("\\boxed{1.25}", {"choices": None, "answer_type": "float", "precision": 1}, "1.2", 1, 1),
        ("about 3 or 4", {"choices": None, "answer_type": "integer", "precision": None}, "4", 1, 1),
        ("none", {"choices": None, "answer_type": "integer", "precision": None}, "4", 0, 0),
        ("[2014,2016]", {"choices": None, "answer_type": "list", "precision": None}, "[2014, 2016]", 0, 1),
    ],
)
def test_quirks_of_mathvista(reply: str, meta: dict[str, Any], truth: str, by_rule: int, strictly: int) -> None:
    assert (official("mathvista", truth, reply, **meta), strict("mathvista", truth, reply, **meta)) == (
        by_rule,
        strictly,
    )


def test_mathvista_scores_extracted_answers_by_a_rule_of_their_own() -> None:
    rule = benchmark("mathvista").by_key["extraction"]
    sample = Sample("s", (), truth="12", meta={"choices": None, "answer_type": "integer", "precision": None})
    assert rule.score(sample, rule.read(sample, "12 cm")) == 0
    assert official("mathvista", "12", "12 cm", **sample.meta) == 1


def test_quirks_of_mmstar() -> None:
    replies = ["D", "d", "(D) a dog", "Option D", "The answer is D.", "Dogs", "<think>no</think>D", "It is (D)", ""]
    assert [official("mmstar", "D", text) for text in replies] == [1, 1, 1, 1, 1, 1, 0, 0, 0]
    assert [strict("mmstar", "D", text) for text in replies] == [1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert strict("mmstar", "D", "<think>no</think>\nThe answer is (D)") == 1


def test_quirks_of_ocrbench() -> None:
    plain, formula = {"formula": False}, {"formula": True}
    assert [official("ocrbench", ["5"], text, **plain) for text in ("5", "15 or 50", "five", "")] == [1, 1, 0, 0]
    assert [strict("ocrbench", ["5"], text, **plain) for text in ("It is 5.", "15 or 50", "five", "")] == [1, 0, 0, 0]
    assert [official("ocrbench", ["x_2 = Y\n"], text, **formula) for text in ("so x_2=Y !", "x_2=y")] == [1, 0]
    assert [strict("ocrbench", ["x_2 = Y\n"], text, **formula) for text in ("$x_2=Y$", "so x_2=Y !")] == [1, 0]
    assert official("ocrbench", ["The END"], "the\nend", **plain) == 1
