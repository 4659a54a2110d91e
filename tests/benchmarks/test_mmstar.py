"""MMStar: every quirk of the official rule."""

from __future__ import annotations

from tests.benchmarks.by_rule import official, strict


def test_quirks_of_mmstar() -> None:
    replies = ["D", "d", "(D) a dog", "Option D", "The answer is D.", "Dogs", "<think>no</think>D", "It is (D)", ""]
    assert [official("mmstar", "D", text) for text in replies] == [1, 1, 1, 1, 1, 1, 0, 0, 0]
    assert [strict("mmstar", "D", text) for text in replies] == [1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert strict("mmstar", "D", "<think>no</think>\nThe answer is (D)") == 1
