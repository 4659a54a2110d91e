"""Short answers: normalization, matching rules, and the rewards of a reply."""

from __future__ import annotations

import pytest

from mmpost.rewards.text import think_format
from mmpost.rewards.vqa import NUMBER_WORDS, Rule, no_answer, normalise, number, short_answer, singular
from mmpost.types import Part, Reply, Sample


def reply(text: str) -> Reply:
    return Reply((Part("text", text, "assistant"),))


def sample_with_truth(truth: object) -> Sample:
    return Sample("q", (Part("text", "how many?"),), truth=truth)


@pytest.mark.parametrize(
    ("text", "truth", "accuracy", "form"),
    [
        ("<think>..</think><answer>3</answer>", "3", 1.0, 1.0),
        ("<answer>3</answer>", "3", 1.0, 0.0),
        ("<think>..</think><answer>3.0</answer>", "3", 1.0, 1.0),
        ("3", "3", 0.0, 0.0),
        ("<think>..</think><answer>4</answer>", "3", 0.0, 1.0),
        ("<think>3</think><answer></answer>", "3", 0.0, 1.0),
    ],
)
def test_the_examples_of_the_method(text: str, truth: str, accuracy: float, form: float) -> None:
    sample = sample_with_truth(truth)
    assert short_answer(sample, reply(text)) == accuracy
    assert think_format(sample, reply(text)) == form
    assert no_answer(sample, reply(text)) == float("<answer>" not in text)


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        (" Three. ", "3"),
        ("twenty-five", "25"),
        ("one hundred", "100.0"),
        ("1,024", "1024"),
        ("2e1", "20"),
        ("3 cars", "3"),
        ("three", "3 cars"),
        ("none", "0"),
        ("30 m", "30 meters"),
        ("30 metres", "30 m"),
        ("40 m2", "40 square meters"),
        ("40 m²", "40 sqm"),
        ("50%", "50 percent"),
        ("Tennis Courts", "a tennis court"),
        ("grey", "Gray."),
        ('"The buses"', "bus"),
        ("cities", "city"),
        ("top-left", "top left"),
    ],
)
def test_equivalent_answers_match(answer: str, truth: str) -> None:
    for a, b in ((answer, truth), (truth, answer)):
        assert Rule().score(a, b) == 1.0


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("3 or 4", "3"),
        ("3 or four", "3"),
        ("30 km", "30 m"),
        ("30 cars", "30 trees"),
        ("3", "3.1"),
        ("-3", "3"),
        ("about 3", "3"),
        ("", "0"),
        ("red", "3"),
        ("bus", "busy"),
        ("glass", "glas"),
        ("nan", "nan1"),
        ("left top", "top left"),
    ],
)
def test_different_answers_do_not_match(answer: str, truth: str) -> None:
    for a, b in ((answer, truth), (truth, answer)):
        assert Rule().score(a, b) == 0.0


def test_normalising_twice_changes_nothing() -> None:
    for text in ("The Grey Houses.", "three  buses!", "classes", "Ponies", "\uff21\uff22", "tennis", "sites", "gas"):
        assert normalise(normalise(text)) == normalise(text)
    assert [singular(w) for w in ("boats", "boxes", "cities", "grass", "tennis", "bus", "trees")] == [
        *("boat", "box", "city", "grass", "tennis", "bus", "tree")
    ]


def test_numbers_as_words_are_those_numbers() -> None:
    quantities = {word: number(word) for word in NUMBER_WORDS}
    assert {word: q.value for word, q in quantities.items() if q is not None} == NUMBER_WORDS
    assert set(NUMBER_WORDS.values()) == set(range(101))


def test_rules() -> None:
    near = Rule(match="number", tolerance=1, near=0.5)
    assert [near.score(answer, "3") for answer in ("3", "4", "two", "5", "many")] == [1.0, 0.5, 0.5, 0.0, 0.0]
    assert Rule(tolerance=1).score("4 cars", "3") == 1.0
    assert Rule(match="words").score("Left top.", "top left") == 1.0
    assert Rule(match="words").score("top", "top left") == 0.0
    assert Rule(match="text").score("3.0", "3") == 0.0
    assert Rule(match="number").score("red", "red") == 0.0
    assert short_answer(sample_with_truth(3), reply("<answer>three</answer>")) == 1.0
    assert short_answer(sample_with_truth(None), reply("<answer>three</answer>")) is None
