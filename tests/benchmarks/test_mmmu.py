"""MMMU: every quirk of the official rule."""

from __future__ import annotations

import pytest

from mmpost.benchmarks.benchmark import benchmark
from mmpost.rewards.mmmu import mmmu_letter, mmmu_values
from mmpost.types import Sample
from tests.benchmarks.by_rule import strict

LETTERS = {"options": ["a dog", "a cat", "a cow", "a pig"]}


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("The answer is B.", "B"),
        ("A or (C)", "C"),
        ("I think A, but then B is right", "B"),
        ("A cat is in the picture so C", "C"),
        ("A dog", "A"),
        ("B?.", "B"),
        ("B.?", None),
        ("It must surely be a pig then", "D"),
        ("**B**", None),
        ("B)", None),
        ("", None),
    ],
)
def test_letters_that_mmmu_reads(reply: str, letter: str | None) -> None:
    assert mmmu_letter(Sample("s", (), truth="B", meta=LETTERS), reply) == letter


def test_mmmu_draws_the_same_letter_for_the_same_place_in_the_data() -> None:
    rule = benchmark("mmmu").official
    replies = [(Sample(str(i), (), truth="B", meta=LETTERS), ["", "(B)"][i % 2]) for i in range(20)]
    drawn = rule.readings(replies)
    assert drawn == rule.readings(replies)
    assert set(drawn[1::2]) == {"B"}
    assert len(set(drawn[::2])) == 4
    assert rule.readings(replies[:10]) == drawn[:10]


def test_free_answers_of_mmmu() -> None:
    assert mmmu_values("The x is 5. The y is 7") == {7.0}
    assert 0.0 in mmmu_values("x = 1,000")
    rule, accepted = benchmark("mmmu").official, {"options": None}
    for truth, reply, score in [
        ("15", "The value is 5", 0),
        ("Paris", "It is the Paris treaty", 0),
        ("5", "so 5.0", 1),
    ]:
        sample = Sample("s", (), truth=[truth], meta=accepted)
        assert rule.score(sample, rule.read(sample, reply)) == score


def test_mmmu_strictly() -> None:
    assert [strict("mmmu", "B", text, **LETTERS) for text in ("**B**", "B)", "\\boxed{B}", "a cat", "A dog", "")] == [
        *(1, 1, 1, 1, 0, 0)
    ]
