"""MathVista: every quirk of the official rule."""

from __future__ import annotations

from typing import Any

import pytest

from mmpost.benchmarks.benchmark import benchmark
from mmpost.types import Sample
from tests.benchmarks.by_rule import official, strict

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
