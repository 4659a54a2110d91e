"""Multiple choice: the published examples of R1-AQA, its released code, and the MMAU rule."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mmpost.rewards import choice
from mmpost.transforms.advantage import GroupAdvantage
from mmpost.types import Part, Reply, Sample
from tests.transforms.fakes import FakeContext

BOAT = Sample("s", (), truth="motorboat", meta={"choices": ["motorboat", "car", "train", "dog"]})


def reply(text: str) -> Reply:
    return Reply((Part("text", text),))


@pytest.mark.parametrize(
    ("text", "accuracy", "form"),
    [
        ("<answer>motorboat</answer>", 1, 1),
        ("<answer>Motorboat</answer>", 0, 1),
        ("motorboat", 1, 0),
        ("I hear an engine. <answer>motorboat</answer>", 1, 0),
        ("<answer>car</answer>", 0, 1),
        ("", 0, 0),
        ("<answer>motorboat</answer> ", 1, 0),
        ("<answer>motorboat</answer><answer>car</answer>", 1, 1),
        ("<answer>\nmotorboat\n</answer>", 0, 1),
    ],
)
def test_the_released_rewards(text: str, accuracy: float, form: float) -> None:
    assert choice.released_accuracy(BOAT, reply(text)) == accuracy
    assert choice.released_format(BOAT, reply(text)) == form


def test_the_released_accuracy_compares_numbers_alone() -> None:
    sample = Sample("s", (), truth="one 3", meta={"choices": ["one 3", "two 3"]})
    assert choice.released_accuracy(sample, reply("<answer>two 3</answer>")) == 1
    assert choice.accuracy(sample, reply("<answer>two 3</answer>")) == 0


@pytest.mark.parametrize(
    ("text", "accuracy", "bare", "form"),
    [
        ("<answer>motorboat</answer>", 1, 1, 1),
        ("<answer>Motorboat</answer>", 0, 0, 1),
        ("motorboat", 0, 1, 0),
        (" motorboat\n", 0, 1, 0),
        ("some text <answer>motorboat</answer>", 1, 1, 0),
        ("<answer>car</answer>", 0, 0, 1),
        ("", 0, 0, 0),
        ("<answer>motorboat</answer> ", 1, 1, 0),
        ("<answer>\nmotorboat\n</answer>", 1, 1, 1),
        ("<answer>motorboat</answer><answer>car</answer>", 1, 1, 0),
        ("<answer>car</answer><answer>motorboat</answer>", 0, 0, 0),
        ("<answer>a motorboat</answer>", 0, 0, 1),
        ("<answer><answer>motorboat</answer>", 0, 0, 0),
    ],
)
def test_the_strict_rewards(text: str, accuracy: float, bare: float, form: float) -> None:
    assert choice.accuracy(BOAT, reply(text)) == accuracy
    assert choice.bare_accuracy(BOAT, reply(text)) == bare
    assert choice.answer_format(BOAT, reply(text)) == form


def test_comparison_is_case_sensitive_unless_disabled() -> None:
    for function, text in ((choice.accuracy, "<answer>Motorboat</answer>"), (choice.bare_accuracy, "MOTORBOAT")):
        assert (function(BOAT, reply(text)), function(BOAT, reply(text), ignore_case=True)) == (0, 1)


@pytest.mark.parametrize(
    ("text", "strict", "released"),
    [
        ("<think>an engine</think><answer>car</answer>", 1, 1),
        ("<think>an\nengine</think>\n <answer>car</answer>", 1, 1),
        ("<answer>car</answer>", 0, 0),
        ("<think>a</think>so<answer>car</answer>", 0, 0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0, 1),
        ("<think>a</think><think>b</think><answer>c</answer>", 0, 1),
        ("<think>a</think><answer>b</answer> ", 0, 0),
        ("<think> </think><answer>car</answer>", 0, 1),
    ],
)
def test_the_format_reward_with_think_tags(text: str, strict: float, released: float) -> None:
    assert choice.think_answer_format(BOAT, reply(text)) == strict
    assert choice.released_think_format(BOAT, reply(text)) == released


def test_a_truth_that_is_not_text_is_not_scored() -> None:
    for function in (choice.accuracy, choice.bare_accuracy, choice.released_accuracy, choice.mmau, choice.mmau_answer):
        assert function(Sample("s", (), truth=3), reply("3")) is None


def test_the_advantages_of_the_published_example() -> None:
    rewards = [2.0, 2.0, 1.0, 1.0, 2.0, 1.0, 1.0, 0.0]
    sample = Sample("s", (), tuple(Reply((), columns={"reward": r}) for r in rewards))
    replies = GroupAdvantage(eps=1e-4)([sample], FakeContext())[0].replies
    expected = [1.0605, 1.0605, -0.3535, -0.3535, 1.0605, -0.3535, -0.3535, -1.7675]
    assert [float(r.columns["advantage"]) for r in replies] == pytest.approx(expected, abs=1e-4)  # type: ignore[arg-type]


PEOPLE = ["A child", "A woman", "An adult man", "A teenager"]


@pytest.mark.parametrize(
    ("answer", "output", "choices", "official", "strict"),
    [
        ("A woman", "A woman", PEOPLE, True, True),
        ("A woman", "woman", PEOPLE, False, False),
        ("A woman", "a woman speaking", PEOPLE, True, False),
        ("A woman", "(B) A woman", PEOPLE, True, True),
        ("A woman", "(A) A woman", PEOPLE, True, False),
        ("A woman", "A woman, not a child", PEOPLE, False, False),
        ("A woman", "", PEOPLE, False, False),
        ("A woman", " a  WOMAN.", PEOPLE, True, True),
        ("Man", "The man", ["Man", "Woman", "Child", "Robot"], True, False),
        ("Man", "B", ["Man", "Woman", "Child", "Robot"], False, False),
        ("twenty", "twenty-three", ["twenty", "twenty-three"], False, False),
        ("A then B", "B then A", ["A then B", "B then A"], True, False),
    ],
)
def test_mmau(answer: str, output: str, choices: list[str], official: bool, strict: bool) -> None:
    assert choice.mmau_match(answer, output, choices) is official
    assert choice.mmau_exact(answer, output, choices) is strict
    sample = Sample("s", (), truth=answer, meta={"choices": choices})
    tagged = f"<think>A child</think><answer>{output}</answer>"
    for text in (output, tagged):
        assert choice.mmau_answer(sample, reply(text)) == official
        assert choice.mmau_strict(sample, reply(text)) == strict
    assert choice.mmau(sample, reply(output)) == official
    assert choice.mmau(sample, reply(tagged)) == choice.mmau_match(answer, tagged, choices)


def test_mmau_scores_of_real_questions() -> None:
    root = os.environ.get("MMPOST_TEST_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data")
    file = Path(root) / "mmau" / "mmau-test-mini.json"
    if not file.exists():
        print(f"no real data: {file} (set MMPOST_TEST_DATA)")
        pytest.skip(f"no real data: {file} (set MMPOST_TEST_DATA)")
    rows = json.loads(file.read_text())
    wrong = {"official": 0, "strict": 0, "items": 0}
    lettered = {"official": 0, "strict": 0}
    for row in rows:
        answer, choices = row["answer"], row["choices"]
        assert choice.mmau_match(answer, answer, choices)
        assert choice.mmau_exact(answer, answer, choices)
        false_matches = sum(choice.mmau_match(answer, c, choices) for c in choices if c != answer)
        wrong["official"] += false_matches
        wrong["items"] += false_matches > 0
        wrong["strict"] += sum(choice.mmau_exact(answer, c, choices) for c in choices if c != answer)
        text = f"({'ABCDEFGH'[choices.index(answer)]}) {answer}"
        lettered["official"] += not choice.mmau_match(answer, text, choices)
        lettered["strict"] += not choice.mmau_exact(answer, text, choices)
    assert wrong == {"official": 12, "strict": 0, "items": 9}
    assert lettered["strict"] == 0
    assert lettered["official"] > 0


def test_the_summary_counts_by_question_type_and_mmau_category() -> None:
    def scored(question_type: str, right: float, **meta: str) -> Sample:
        scores = {"accuracy": right, "mmau": 1.0}
        return Sample("s", (), (Reply((), scores=scores),), "x", {"kind": question_type, **meta})

    rows = [scored("music", 1.0), scored("music", 0.0), scored("sound", 1.0)]
    assert choice.choice_summary(rows) == pytest.approx(
        {"accuracy": 200 / 3, "mmau": 100, "accuracy/music": 50, "accuracy/sound": 100}
    )
    summary = choice.choice_summary([scored("sound", 0.0, **{"difficulty": "hard", "sub-category": "Rhythm"})])
    assert summary["accuracy/hard"] == summary["accuracy/Rhythm"] == summary["accuracy/sound"] == 100
    assert choice.choice_summary([]) == {}
