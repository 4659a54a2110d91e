"""BLINK: every quirk of the official rule, and tasks that count alike."""

from __future__ import annotations

import pytest

from mmpost.benchmarks.benchmark import Scored, benchmark
from mmpost.benchmarks.estimates import estimates
from mmpost.rewards.blink import blink_option
from mmpost.types import Sample
from tests.benchmarks.by_rule import official, strict

OPTIONS = ["yes", "no", "both"]


@pytest.mark.parametrize(
    ("reply", "option"),
    [
        ("B", "(B)"),
        ("(B)", "(B)"),
        ("(E)", "(E)"),
        ("The answer is (B) no", "(B)"),
        ("(A) or (B)?\n\nI take (B) no", "(B)"),
        ("It is (A) yes\n\nfor this reason", "(A)"),
        ("(A) or (B)", None),
        ("The answer is (B).", None),
        ("**(B)**", None),
        ("B ", None),
        ("b", None),
        ("no", None),
        ("(D) is it", None),
        ("", None),
    ],
)
def test_options_that_blink_reads(reply: str, option: str | None) -> None:
    assert blink_option(reply, OPTIONS) == option


def test_blink_strictly() -> None:
    replies = ["B", "**(B)**", "No.", "The answer is (B).", "(A) or (B)", "(D)", ""]
    assert [strict("blink", "(B)", text, options=OPTIONS) for text in replies] == [1, 1, 1, 1, 0, 0, 0]
    assert [official("blink", "(B)", text, options=OPTIONS) for text in replies] == [1, 0, 0, 0, 0, 0, 0]


def test_letters_that_were_read_before_are_compared_as_they_are() -> None:
    rule = benchmark("blink").by_key["prediction"]
    sample = Sample("s", (), truth="(B)", meta={"options": OPTIONS})
    assert [rule.score(sample, rule.read(sample, text)) for text in ("(B)", "(B) ", "B", "(Z)")] == [1, 0, 0, 0]


def test_tasks_count_alike() -> None:
    def scored(task: str, score: float) -> list[Scored]:
        return [Scored(Sample(f"{task}{score}", (), meta={"group": task}), "", None, score)]

    clusters = [scored("a", 1.0)] * 30 + [scored("b", 1.0)] * 5 + [scored("b", 0.0)] * 5
    found = estimates(benchmark("blink").summary, clusters)
    assert {name: (each["value"], each["n"]) for name, each in found.items()} == {
        "accuracy": (0.75, 40),
        "accuracy/a": (1, 30),
        "accuracy/b": (0.5, 10),
        "micro": (0.875, 40),
    }
    assert 0.55 < found["accuracy"]["low"] < 0.65
    assert next(iter(found)) == "accuracy"
