"""Rewards of single values: exact, with a tolerance, and as mathematical expressions."""

from __future__ import annotations

import threading

import pytest

from mmpost.rewards import expression
from mmpost.rewards.discrete import discrete_value
from mmpost.rewards.expression import equivalent, same_expression
from mmpost.rewards.numeric import math_tolerance
from tests.rewards.replies import reply, sample_with_truth, tagged_reply


@pytest.mark.parametrize(
    ("value", "score"),
    [(104.9, 1), (105, 1), (110, 0.75), (112.5, 0.5), (115, 0.25), (120, 0), (95, 1), (80, 0), (130, 0), (-100, 0)],
)
def test_tolerance_around_a_hundred(value: float, score: float) -> None:
    assert math_tolerance(sample_with_truth("100"), tagged_reply(str(value))) == pytest.approx(score)
    assert math_tolerance(sample_with_truth(100), tagged_reply(f"\n{value}\n")) == pytest.approx(score)
    assert math_tolerance(sample_with_truth("-100"), tagged_reply(str(-value))) == pytest.approx(score)


def test_a_correct_zero_is_correct() -> None:
    assert math_tolerance(sample_with_truth("0"), tagged_reply("0")) == 1
    assert math_tolerance(sample_with_truth("0"), tagged_reply("0.0")) == 1
    assert math_tolerance(sample_with_truth("0"), tagged_reply("0.01")) == 0
    assert math_tolerance(sample_with_truth(0.0), tagged_reply("zero")) == 0


def test_other_tolerances() -> None:
    assert math_tolerance(sample_with_truth("10"), tagged_reply("12"), e1=0.25, e2=0.5) == 1
    assert math_tolerance(sample_with_truth("10"), tagged_reply("13"), e1=0.1, e2=0.5) == pytest.approx(0.5)


def test_non_numeric_answers_must_match_exactly() -> None:
    assert math_tolerance(sample_with_truth("B"), tagged_reply(" B ")) == 1
    assert math_tolerance(sample_with_truth("B"), tagged_reply("C")) == 0
    assert math_tolerance(sample_with_truth("B"), tagged_reply("2")) == 0
    assert math_tolerance(sample_with_truth("2"), tagged_reply("nan")) == 0
    assert math_tolerance(sample_with_truth("2"), tagged_reply("inf")) == 0
    assert math_tolerance(sample_with_truth(["B"]), tagged_reply("B")) is None


@pytest.mark.parametrize(
    ("answer", "score"),
    [("3", 1), ("\n3\n", 1), ("3.0", 0), ("three", 0), ("4", 0), ("", 0), ("3</answer><answer>4", 1)],
)
def test_a_discrete_answer_in_tags_is_compared_as_text(answer: str, score: float) -> None:
    assert discrete_value(sample_with_truth("3"), tagged_reply(answer)) == score
    assert discrete_value(sample_with_truth(" <answer> 3 </answer>"), tagged_reply(answer)) == score


def test_a_discrete_answer_without_tags_is_compared_as_mathematics() -> None:
    assert discrete_value(sample_with_truth("3"), reply("so it must be 3.0")) == 1
    assert discrete_value(sample_with_truth("3"), reply("so it must be 4")) == 0
    assert discrete_value(sample_with_truth("3"), reply("")) == 0
    assert discrete_value(sample_with_truth(None), reply("3")) is None


def test_expressions() -> None:
    assert same_expression(sample_with_truth("1/2"), tagged_reply(r"$\frac{2}{4}$")) == 1
    assert same_expression(sample_with_truth("1/2"), tagged_reply("0.5")) == 1
    assert same_expression(sample_with_truth("1/2"), tagged_reply("0.6")) == 0
    assert same_expression(sample_with_truth("B"), tagged_reply("B")) == 1
    assert same_expression(sample_with_truth([]), tagged_reply("B")) is None


def test_the_time_limit_works_in_threads_and_later_comparisons_succeed() -> None:
    """A tower of powers is a single call into C, which no signal interrupts; threads get no signals anyway."""
    equivalent.cache_clear()
    equivalent("1", "2")  # starts the process
    results: list[bool] = []

    def compare() -> None:
        results.append(equivalent("$9^{9^{9^{9}}} - 1$", "$9^{9^{9^{9}}} + 1$", seconds=1.0))
        results.append(equivalent("2/4", "1/2"))

    thread = threading.Thread(target=compare)
    thread.start()
    thread.join(60)
    assert results == [False, True]
    assert not thread.is_alive()


def test_a_crashed_worker_process_is_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    equivalent.cache_clear()
    assert equivalent("2/4", "1/2")
    process = expression._worker._process
    assert process is not None
    process.kill()
    process.wait()
    assert not equivalent("4/8", "1/2"), "the comparison during the crash fails"
    assert equivalent("8/16", "1/2")
