"""Patterns that were rewritten in linear time accept the same texts as the regular expressions that define them."""

from __future__ import annotations

import random
import re

import pytest

from mmpost.rewards import calls, text

ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
CALL = re.compile(r"""([A-Za-z_]\w*)\s*\(\s*['"]?(\w+)['"]?\s*,\s*['"]?([^'"(),]+?)['"]?\s*\)""")
TAGS = ("<think>", "</think>", "<answer>", "</answer>", " ", "\n", "x", "<", ">")
CODE = ("f", "g_1", "1", "(", ")", ",", "'", '"', " ", "\n", "a", "(a, b)", "('a', 'b c')", "f(a,")


def random_texts(fragments: tuple[str, ...], n: int = 4000) -> list[str]:
    rng = random.Random(0)
    return ["".join(rng.choices(fragments, k=rng.randrange(12))) for _ in range(n)]


def test_the_first_answer_is_that_of_the_lazy_pattern() -> None:
    for candidate in random_texts(TAGS):
        match = ANSWER.search(candidate)
        assert text.answer(candidate) == (match[1] if match else None), candidate


@pytest.mark.parametrize("names", [("answer",), ("think", "answer"), ("answer", "think", "answer")])
def test_blocks_of_tags_are_those_of_the_greedy_pattern(names: tuple[str, ...]) -> None:
    pattern = re.compile(r"\s*".join(f"<{name}>.*</{name}>" for name in names), re.DOTALL)
    candidates = random_texts(TAGS)
    whole = [rf"<{names[0]}>{candidate}</{names[-1]}>" for candidate in candidates]
    accepted = [text.is_tagged(candidate, *names) for candidate in (*candidates, *whole)]
    assert accepted == [pattern.fullmatch(candidate) is not None for candidate in (*candidates, *whole)]
    assert 0 < sum(accepted) < len(accepted)


def test_calls_are_those_of_the_pattern_unless_a_value_is_blank() -> None:
    found = 0
    for candidate in random_texts(CODE, 20_000):
        expected = [calls.Call(*m.groups()) for m in CALL.finditer(candidate)]
        if all(call.value.strip() for call in expected):
            assert calls.read_calls(candidate) == expected, candidate
            found += len(expected)
    assert found > 1000
