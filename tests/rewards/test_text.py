"""Rewards on the text alone."""

from __future__ import annotations

import pytest

from mmpost.rewards.text import answer, non_repeat, think_format
from mmpost.types import Part, Reply, Sample

SAMPLE = Sample("s", ())


def reply(text: str) -> Reply:
    return Reply((Part("text", text),))


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("<think>a</think><answer>b</answer>", 1),
        ("<think>a\nb</think> \n <answer>\n</answer>", 1),
        ("<answer>b</answer>", 0),
        (" <think>a</think><answer>b</answer>", 0),
        ("<think>a</think><answer>b</answer>.", 0),
        ("<think>a</think>then<answer>b</answer>", 0),
        ("<answer>b</answer><think>a</think>", 0),
        ("", 0),
    ],
)
def test_think_format(text: str, score: float) -> None:
    assert think_format(SAMPLE, reply(text)) == score


@pytest.mark.parametrize(
    ("text", "score"),
    [("", 1), ("I see a 7. It is left.", 1), ("A. A. B", 1), ("A. A. A.", 0), ("A. B. A. B.", 0), ("Wait...", 1)],
)
def test_non_repeat(text: str, score: float) -> None:
    assert non_repeat(SAMPLE, reply(text)) == score


def test_the_first_answer_counts() -> None:
    assert answer("<answer>1</answer><answer>2</answer>") == "1"
    assert answer("<answer>1") is None
