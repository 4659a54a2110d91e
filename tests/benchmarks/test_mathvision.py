"""MATH-Vision: every quirk of the official rule, and the arithmetic that stands in for latex2sympy and eval."""

from __future__ import annotations

import math
import time

import pytest

from mmpost.benchmarks.benchmark import benchmark
from mmpost.rewards.mathvision import equal_answers, latex_number, mathvision_answer
from mmpost.types import Sample
from tests.benchmarks.by_rule import official, strict

FREE = {"options": []}
PICTURES = {"options": list("ABCDE")}


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("So it is \\boxed{1} or \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("I choose (B).", "b"),
        ("C\nbecause", "c"),
        ("The answer is 5 cm. It is long", "5cm"),
        ("the length is 12.", "12"),
        ("x = 30^\\circ", "30"),
        ("\\boxed{\\text{(A)}}", "a"),
        ("\\sqrt2/\\frac12", "\\sqrt{2}/\\frac{1}{2}"),
        ("7/3", "\\frac{7}{3}"),
        ("Dogs bark", "dogsbark"),
        ("", ""),
    ],
)
def test_answers_that_mathvision_takes(reply: str, answer: str) -> None:
    assert mathvision_answer(reply) == answer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("60", 60), ("1,000", 1000), (".5", 0.5), ("--5", 5), ("2(3)", 6), ("3 4", 12), ("5!", 120), ("2:3", 2 / 3)),
        *(
            ("\\frac{3\\sqrt{6}}{2}", 1.5 * 6**0.5),
            ("12\\frac{1}{2}", 6),
            ("1/2/3", 1 / 6),
            ("-2^2", -4),
            ("50\\%", 0.5),
        ),
        *(("4\\pi-2\\sqrt{3}", 4 * math.pi - 2 * 3**0.5), ("\\sqrt[3]{8}", 2), ("\\tau", math.tau), ("e^2", math.e**2)),
        *(("5)7", 5), ("5.so", 5), ("\\{3\\}", 3), ("2^{-1}", 0.5), ("6\\div3", 2), ("$5$", 5)),
        *(
            ("", None),
            ("b", None),
            ("e", None),
            ("5cm", None),
            ("1/0", None),
            ("5+", None),
            ("(3", None),
            ("10,20", None),
        ),
        *(("\\sqrt{-1}", None), ("\\sin(1)", None), ("x=5", None), ("\\infty", None), ("\\frac12", None), ("5%", None)),
        *(
            ("9^{9^{9}}", None),
            ("9!!!", None),
            ("(" * 900, None),
            ("1" * 2000, None),
            ("e^{9999}", None),
            ("\u00b2", None),
        ),
    ],
)
def test_arithmetic(text: str, value: float | None) -> None:
    assert latex_number(text) == (None if value is None else pytest.approx(value))


def test_equal_answers() -> None:
    assert equal_answers("0", "0.001")
    assert not equal_answers("(3,-4)", "(3.0,\\frac{-8}{2})")
    assert equal_answers("(3,-4)", "(3.0,-4)")
    assert equal_answers("$25 \\%$", "0.25")
    assert not equal_answers("$25 \\%$", "25")
    assert not equal_answers("(3,-4)", "(3,4)")
    assert not equal_answers("12 cm", "12")
    assert not equal_answers("", "")


def test_quirks_of_mathvision() -> None:
    options = {"options": ["$12 \\mathrm{~cm}$", "$\\frac{1}{2}$", "3", "4", "5"]}
    replies = ["B", "\\boxed{B}", "\\boxed{0.5}", "It is 1/2", "(B) $\\frac{1}{2}$", "0.501", "I like B", ""]
    assert [official("mathvision", "B", text, **options) for text in replies] == [1, 1, 1, 0, 0, 1, 0, 0]
    assert [strict("mathvision", "B", text, **options) for text in replies] == [1, 1, 1, 0, 1, 0, 0, 0]
    assert [official("mathvision", "0", text, **FREE) for text in ("0.001", "zero", "0)5")] == [1, 0, 1]
    assert [strict("mathvision", "0", text, **FREE) for text in ("0.001", "zero", "0.0", "")] == [0, 0, 1, 0]
    assert [official("mathvision", "7", text, **FREE) for text in ("\\frac{14}2", "14/2")] == [0, 1]
    assert [official("mathvision", "C", text, **PICTURES) for text in ("(C)", "c", "So (C).", "(C) it is")] == [
        1,
        1,
        1,
        0,
    ]


def test_answers_that_were_taken_before_are_compared_as_they_are() -> None:
    rule = benchmark("mathvision").by_key["model_answer"]
    sample = Sample("s", (), truth="B", meta=PICTURES)
    assert [rule.score(sample, rule.read(sample, text)) for text in ("b", "(b)", "I choose (B).")] == [1, 0, 0]


def test_long_replies_are_read_soon() -> None:
    start = time.process_time()
    for text in ("\\frac" * 20_000, "\\sqrt" * 20_000, "{" * 100_000, "oxed{" * 20_000, "(a)" * 30_000, "1," * 50_000):
        official("mathvision", "1/2", text, **FREE)
        strict("mathvision", "1/2", text, **FREE)
    assert time.process_time() - start < 2
