"""Rewards of the text alone: formats, repetition and reasoning steps."""

from __future__ import annotations

import pytest

from mmpost.rewards.text import (
    answer,
    answer_or_text,
    caption_format,
    non_repeat,
    reasoning_steps,
    think_format,
    thinks,
)
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
        ("<think>a</think><answer></answer>", 1),
        ("<think></think><answer>b</answer>", 0),
        ("<think> \n\t</think><answer>b</answer>", 0),
        ("<think></think>a</think><answer>b</answer>", 0),
        ("<think>a</think>\n<answer>b</answer><answer>c</answer>", 1),
        ("<think>a</think><answer>b</answer>\n", 0),
    ],
)
def test_think_format(text: str, score: float) -> None:
    assert think_format(SAMPLE, reply(text)) == score


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("<think>a</think>", 1),
        ("so <think>\n a</think><answer>", 1),
        ("<think>a", 0),
        ("a</think>", 0),
        ("<think></think><think>a</think>", 0),
        ("<think>\u00a0</think>", 0),
        ("", 0),
    ],
)
def test_thinks(text: str, score: float) -> None:
    assert thinks(SAMPLE, reply(text)) == score


@pytest.mark.parametrize(
    ("text", "score"),
    [("", 1), ("I see a 7. It is left.", 1), ("A. A. B", 1), ("A. A. A.", 0), ("A. B. A. B.", 0), ("Wait...", 1)],
)
def test_non_repeat(text: str, score: float) -> None:
    assert non_repeat(SAMPLE, reply(text)) == score


def test_the_first_answer_counts() -> None:
    assert answer("<answer>1</answer><answer>2</answer>") == "1"
    assert answer("<answer>1") is None


def test_inside_spans_lines_and_returns_all_text_without_tags() -> None:
    assert answer_or_text("<think>2</think><answer>\n 1\n</answer>") == "1"
    assert answer_or_text(" 1 \n") == "1"


def test_caption_format() -> None:
    good = "<summary>a</summary>\n<caption>b</caption><think>c</think><answer>d</answer>"
    assert caption_format(SAMPLE, reply(good)) == 1
    assert caption_format(SAMPLE, reply(good.replace("caption", "summary"))) == 0
    assert caption_format(SAMPLE, reply(good.replace("<think>c", "<think>"))) == 0
    assert caption_format(SAMPLE, reply("<think>c</think><answer>d</answer>")) == 0


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("", 0),
        ("It is 7.", 0),
        ("Step 1: look", 1 / 3),
        ("First this, then that", 2 / 3),
        ("1. a\n2. b\n3. c\n4. d", 1),
    ],
)
def test_reasoning_steps(text: str, score: float) -> None:
    assert reasoning_steps(SAMPLE, reply(text)) == pytest.approx(score)
