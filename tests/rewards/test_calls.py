"""Rewards of function sequences: closed forms, matching, and extraction of the answer."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from itertools import permutations

import pytest

from mmpost.rewards.calls import (
    FULL_ONLY,
    PARTIAL,
    PENALTY,
    Call,
    function_sequence,
    function_sequence_full,
    function_sequence_metric,
    function_sequence_penalty,
    read_calls,
    sequence_score,
)
from tests.rewards.replies import reply, sample_with_truth, tagged_reply

TRUTH = "change_color(obj1, red), change_size(obj2, small)"
VARIANTS = (function_sequence, function_sequence_full, function_sequence_penalty)


@pytest.mark.parametrize(
    ("answer", "scores"),
    [
        (TRUTH, (1, 1, 1)),
        ("change_color(obj1, red), change_size(obj2, large)", (0.75, 0.5, 0.375)),
        ("change_color(obj1, red), change_size(obj3, small)", (0.75, 0.5, 0.375)),
        ("change_color(obj1, red), change_size(obj3, large)", (0.625, 0.5, 0.25)),
        ("change_color(obj1, red)", (0.5, 0.5, 0.5)),
        (f"{TRUTH}, change_shape(obj3, cube)", (2 / 3, 2 / 3, 2 / 3)),
        (f"{TRUTH}, {TRUTH}", (0.5, 0.5, 0.5)),
        ("change_color(obj3, blue), change_size(obj4, large)", (0.25, 0, -0.5)),
        ("", (0, 0, 0)),
        ("nothing changed", (0, 0, 0)),
        ("change_size(obj2, small), change_color(obj1, red)", (1, 1, 1)),
    ],
)
def test_the_closed_forms(answer: str, scores: tuple[float, ...]) -> None:
    sample = sample_with_truth(TRUTH)
    assert [f(sample, tagged_reply(answer)) for f in VARIANTS] == pytest.approx(scores)


def test_the_metric_does_not_punish_repeats() -> None:
    assert function_sequence_metric(sample_with_truth(TRUTH), tagged_reply(f"{TRUTH}, {TRUTH}")) == 1
    assert function_sequence_metric(
        sample_with_truth(TRUTH), tagged_reply(f"{TRUTH}, change_size(obj9, small)")
    ) == pytest.approx(2 / 3)


@pytest.mark.parametrize("score", [*VARIANTS, function_sequence_metric])
def test_only_the_content_of_the_answer_tags_is_parsed(score) -> None:
    """The released evaluator also matches the reasoning, because its pattern does not span lines."""
    wrong = "change_color(obj1, blue), change_shape(obj2, cube)"
    plain = score(sample_with_truth(TRUTH), reply(f"<answer>{TRUTH}</answer>"))
    lines = reply(f"<think>\nnot {wrong}\n</think>\n<answer>\n{TRUTH}\n</answer>")
    assert score(sample_with_truth(TRUTH), lines) == plain == 1
    assert score(sample_with_truth(f"<answer>\n{TRUTH}\n</answer>"), lines) == 1
    assert score(sample_with_truth(TRUTH), reply(TRUTH)) == 1, "without tags, the whole reply is the answer"


def test_values_may_be_quoted() -> None:
    assert read_calls("""change_size(1, 'small'), change_color( obj2 ,"dark red") f(3) g(1, 2, 3)""") == [
        Call("change_size", "1", "small"),
        Call("change_color", "obj2", "dark red"),
    ]


def test_the_matching_is_the_best_of_all_pairings() -> None:
    """Greedy matching misses it where one exact pair prevents two partial ones."""
    rng = random.Random(0)
    weights = (1.0, 0.9, 0.7, 0.25)
    for _ in range(60):
        predicted, truth = (
            {Call(rng.choice("fg"), rng.choice("ab"), rng.choice("xy")) for _ in range(3)} for _ in "12"
        )
        short, long = sorted((sorted(predicted), sorted(truth)), key=len)

        def pair_score(a: Call, b: Call) -> float:
            if a.function != b.function:
                return 0.0
            return weights[3 - 2 * (a.object == b.object) - (a.value == b.value)]

        best = max(sum(map(pair_score, short, order)) for order in permutations(long, len(short)))
        assert sequence_score(list(predicted), list(truth), weights) == pytest.approx(best / len(long))


def test_partial_matches_are_assigned_even_if_penalized() -> None:
    """Maximizing penalized scores would instead pair calls without anything in common."""
    truth = read_calls(TRUTH)
    crossed = read_calls("change_size(obj1, red), change_color(obj2, small)")
    assert sequence_score(crossed, truth, PENALTY) == pytest.approx(-0.5)
    assert sequence_score(crossed, truth, PARTIAL) == pytest.approx(0.25)
    assert sequence_score(crossed, truth, FULL_ONLY) == 0


def test_scores_do_not_depend_on_the_hash_of_strings() -> None:
    code = (
        "from mmpost.rewards.calls import *\n"
        "said = read_calls('f(a, x), f(a, y), f(b, x), g(c, z), g(a, z)')\n"
        "print(sequence_score(said, read_calls('f(a, z), f(b, y), g(b, z)')))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True)
        for seed in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout != b""


def test_a_truth_without_calls_is_not_scored() -> None:
    assert function_sequence(sample_with_truth("7"), tagged_reply(TRUTH)) is None
    assert function_sequence(sample_with_truth(None), tagged_reply(TRUTH)) is None
