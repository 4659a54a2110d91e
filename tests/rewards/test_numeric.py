"""Rewards of single values: exact, with a tolerance, and as mathematics."""

from __future__ import annotations

import threading
import time

import pytest

from mmpost.rewards import expression
from mmpost.rewards.discrete import discrete_value
from mmpost.rewards.expression import equivalent, same_expression
from mmpost.rewards.numeric import math_tolerance
from tests.rewards.replies import answered, asked, reply


@pytest.mark.parametrize(
    ("said", "score"),
    [(104.9, 1), (105, 1), (110, 0.75), (112.5, 0.5), (115, 0.25), (120, 0), (95, 1), (80, 0), (130, 0), (-100, 0)],
)
def test_tolerance_around_a_hundred(said: float, score: float) -> None:
    assert math_tolerance(asked("100"), answered(str(said))) == pytest.approx(score)
    assert math_tolerance(asked(100), answered(f"\n{said}\n")) == pytest.approx(score)
    assert math_tolerance(asked("-100"), answered(str(-said))) == pytest.approx(score)


def test_a_right_zero_is_right() -> None:
    assert math_tolerance(asked("0"), answered("0")) == 1
    assert math_tolerance(asked("0"), answered("0.0")) == 1
    assert math_tolerance(asked("0"), answered("0.01")) == 0
    assert math_tolerance(asked(0.0), answered("zero")) == 0


def test_other_tolerances() -> None:
    assert math_tolerance(asked("10"), answered("12"), e1=0.25, e2=0.5) == 1
    assert math_tolerance(asked("10"), answered("13"), e1=0.1, e2=0.5) == pytest.approx(0.5)


def test_what_is_no_number_must_be_equal() -> None:
    assert math_tolerance(asked("B"), answered(" B ")) == 1
    assert math_tolerance(asked("B"), answered("C")) == 0
    assert math_tolerance(asked("B"), answered("2")) == 0
    assert math_tolerance(asked("2"), answered("nan")) == 0
    assert math_tolerance(asked("2"), answered("inf")) == 0
    assert math_tolerance(asked(["B"]), answered("B")) is None


@pytest.mark.parametrize(
    ("said", "score"), [("3", 1), ("\n3\n", 1), ("3.0", 0), ("three", 0), ("4", 0), ("", 0), ("3</answer><answer>4", 1)]
)
def test_a_discrete_answer_in_tags_is_compared_as_text(said: str, score: float) -> None:
    assert discrete_value(asked("3"), answered(said)) == score
    assert discrete_value(asked(" <answer> 3 </answer>"), answered(said)) == score


def test_a_discrete_answer_without_tags_is_compared_as_mathematics() -> None:
    assert discrete_value(asked("3"), reply("so it must be 3.0")) == 1
    assert discrete_value(asked("3"), reply("so it must be 4")) == 0
    assert discrete_value(asked("3"), reply("")) == 0
    assert discrete_value(asked(None), reply("3")) is None


def test_expressions() -> None:
    assert same_expression(asked("1/2"), answered(r"$\frac{2}{4}$")) == 1
    assert same_expression(asked("1/2"), answered("0.5")) == 1
    assert same_expression(asked("1/2"), answered("0.6")) == 0
    assert same_expression(asked("B"), answered("B")) == 1
    assert same_expression(asked([]), answered("B")) is None


def test_the_limit_holds_in_a_thread_and_the_next_comparison_works() -> None:
    """A power of powers is one call of C code: no alarm would end it, and threads have no alarms."""
    equivalent.cache_clear()
    equivalent("1", "2")  # starts the process
    found: list[bool] = []

    def ask() -> None:
        found.append(equivalent("$9^{9^{9^{9}}} - 1$", "$9^{9^{9^{9}}} + 1$", seconds=1.0))
        found.append(equivalent("2/4", "1/2"))

    start = time.perf_counter()
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(60)
    assert found == [False, True]
    assert time.perf_counter() - start < 50


def test_a_process_that_dies_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    equivalent.cache_clear()
    assert equivalent("2/4", "1/2")
    process = expression._worker._process
    assert process is not None
    process.kill()
    process.wait()
    assert not equivalent("4/8", "1/2"), "its last question has no answer"
    assert equivalent("8/16", "1/2")
