"""Scores of answers about tables: the published values of both F1, and the reward of a stub."""

from __future__ import annotations

import pytest

from mmpost.tables.questions import Question, legal_tail, question_score, released_character_f1, token_f1

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


QUESTIONS = [Question(name, number) for name, number in (("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"))]
TABLE = "".join(f"<fcel>{name}<fcel>{number}<nl>\n" for name, number in QUESTIONS)


def look_up(table: str, question: str) -> str:
    """A stub that finds the cell after the one that the question names."""
    _, _, rest = table.partition(f"<td>{question}</td><td>")
    return rest.partition("</td>")[0] or "not answerable"


def test_the_reward_is_the_mean_over_questions() -> None:
    assert question_score(TABLE, QUESTIONS, look_up) == 1
    assert question_score(TABLE.replace("<fcel>b<fcel>2<nl>\n", ""), QUESTIONS, look_up) == 0.75
    assert question_score("<table><tr><th>a</th><td> 1 </td></tr></table>", QUESTIONS, look_up) == 0.25
    assert question_score("no table", QUESTIONS, look_up) == question_score(TABLE, [], look_up) == 0
    assert question_score(TABLE.replace("1", "1 or 12"), QUESTIONS[:1], look_up) == 0
    assert question_score(TABLE.replace("1", "21"), [Question("a", "12")], look_up, released_character_f1) == 1


def test_a_reply_that_was_cut_off_is_not_asked_about() -> None:
    def ask(table: str, question: str) -> str:
        raise AssertionError("asked")

    assert question_score(TABLE.removesuffix("<nl>\n"), QUESTIONS, ask) == 0
    assert [legal_tail(text) for text in (TABLE, "<fcel>a", "<nl> x", "<nl>\n")] == [True, True, False, True]


def test_a_table_that_is_too_large_is_shown_as_none() -> None:
    shown: list[str] = []
    question_score("<ecel>" * 6000 + "<nl>", QUESTIONS[:1], lambda table, question: shown.append(table) or "")
    question_score("<fcel>" + "x" * 40_000 + "<nl>", QUESTIONS[:1], lambda table, question: shown.append(table) or "")
    assert [len(table) for table in shown] == [0, 30_000]
