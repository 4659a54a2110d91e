"""DocVQA and InfographicVQA: every quirk of the official rule, and the similarity in known cases."""

from __future__ import annotations

import pytest

from mmpost.benchmarks.benchmark import Scored, benchmark
from mmpost.benchmarks.estimates import estimates
from mmpost.types import Sample
from tests.benchmarks.by_rule import official, strict

NAMES = ("docvqa", "infovqa")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("reply", "accepted", "by_rule", "strictly"),
    [
        ("university", ["University of X"], 2 / 3, 2 / 3),
        ("1,234", ["1234"], 0.8, 0.8),
        ("ab", ["cb"], 0.5, 0),
        ("abc", ["abxy"], 0.5, 0),
        ("abc", ["axyz"], 0, 0),
        ("PARIS", ["rome", "paris"], 1, 1),
        ("white  house\n", ["White House"], 1, 1),
        ("x" + " " * 99, ["paris"], 0.95, 0),
        ("The answer is Paris.", ["Paris"], 0, 1),
        ("<think>Rome?</think><answer>Paris</answer>", ["Paris"], 0, 1),
        ('"Paris"', ["Paris"], 1 - 2 / 7, 1),
        ("Paris, of course, as everyone knows", ["Paris"], 0, 0),
        ("", ["a"], 0, 0),
        ("", [""], 1, 0),
    ],
)
def test_quirks_of_anls(name: str, reply: str, accepted: list[str], by_rule: float, strictly: float) -> None:
    assert official(name, accepted, reply) == pytest.approx(by_rule)
    assert strict(name, accepted, reply) == pytest.approx(strictly)


@pytest.mark.parametrize("name", NAMES)
def test_the_score_is_the_mean_over_questions_and_each_type(name: str) -> None:
    samples = [Sample(str(i), (), truth=["a"], meta={"groups": groups}) for i, groups in enumerate([["t"], ["t"], []])]
    scored = [[Scored(sample, "", "", score)] for sample, score in zip(samples, (0.8, 0.0, 1.0), strict=True)]
    found = estimates(benchmark(name).summary, scored)
    assert {metric: estimate["value"] for metric, estimate in found.items()} == pytest.approx(
        {"anls": 0.6, "anls/t": 0.4}
    )
    assert found["anls/t"]["n"] == 2
