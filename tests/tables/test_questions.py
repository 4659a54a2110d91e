"""Scores of answers about tables: the published values of both F1, and the reward of a stub."""

from __future__ import annotations

import pytest

from mmpost.errors import DataError
from mmpost.tables.questions import (
    Question,
    legal_tail,
    question_pairs,
    released_character_f1,
    shown_table,
    token_f1,
)

PUBLISHED = [
    ("mA", "mA", 1, 1),
    ("Am", "mA", 1, 0),
    ("63", "36", 1, 0),
    ("12.5", "15.2", 1, 0),
    ("listen", "silent", 1, 0),
    ("12.5", "12.4", 0.75, 0),
    ("0.83", "0.88", 0.75, 0),
    ("1,823", "1823", 0.7273, 1),
    ("The unit is mA", "mA", 0.1818, 0.4),
    ("Yes", "yes", 0.6667, 1),
    ("", "mA", 0, 0),
]


@pytest.mark.parametrize(("predicted", "gold", "released", "token"), PUBLISHED)
def test_published_values(predicted: str, gold: str, released: float, token: float) -> None:
    assert released_character_f1(predicted, gold) == pytest.approx(released, abs=5e-5)
    assert token_f1(predicted, gold) == pytest.approx(token, abs=5e-5)


@pytest.mark.parametrize(
    ("predicted", "gold", "score"),
    [
        ("12.5 mA", "12.5", 0),
        ("12.5 mA", "12.5 mA", 1),
        ("12.5 mA", "12.5 V", 0.5),
        ("表格", "表", 2 / 3),
        ("\N{FULLWIDTH LATIN SMALL LETTER A}", "a", 1),
        ("1,8", "18", 0),
        ("", "", 0),
    ],
)
def test_words_and_numbers(predicted: str, gold: str, score: float) -> None:
    assert token_f1(predicted, gold) == pytest.approx(score)


def test_what_a_language_model_is_shown() -> None:
    assert shown_table("<fcel>a<fcel>1<nl>\n") == "<table><tr><td>a</td><td>1</td></tr></table>"
    assert shown_table("<table><tr><th>a</th><td> 1 </td></tr></table>") == (
        "<table><tr><td>a</td><td>1</td></tr></table>"
    )
    assert shown_table("no table") == shown_table("<ecel>" * 6000 + "<nl>") == ""
    assert len(shown_table("<fcel>" + "x" * 40_000 + "<nl>")) == 30_000
    assert [legal_tail(text) for text in ("<fcel>a<nl>", "<fcel>a", "<nl> x", "<nl>\n")] == [True, True, False, True]


def test_pairs_of_rows() -> None:
    rows = [{"question": "a?", "answer": "1", "more": 0}, {"question": "b?", "answer": 2.5}]
    assert question_pairs(rows) == [Question("a?", "1"), Question("b?", "2.5")]


@pytest.mark.parametrize(
    "value",
    [
        None,
        "a?",
        {"question": "a?", "answer": "1"},
        ["a?"],
        [{"question": "a?"}],
        [{"question": " ", "answer": "1"}],
        [{"question": "a?", "answer": True}],
        [{"question": "a?", "answer": None}],
    ],
)
def test_pairs_that_are_none(value: object) -> None:
    with pytest.raises(DataError, match="wanted questions"):
        question_pairs(value)
