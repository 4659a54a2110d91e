"""Questions about tables: what is asked and answered, exact on right tables and wrong where the table is."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from mmpost.tables.html import read_html
from mmpost.tables.lookup import KINDS, Lookup, answer_without_table, with_reading_errors, write_questions
from mmpost.tables.otsl import read_otsl, write_otsl
from mmpost.tables.questions import NOT_ANSWERABLE
from mmpost.tables.table import Table

SPANS = (
    "<ecel><fcel>sepal<lcel><fcel>petal<nl>"
    "<ucel><fcel>len<fcel>wid<fcel>len<nl>"
    "<fcel>a1<fcel>5.1<fcel>3.5<fcel>1.4<nl>"
    "<fcel>b2<fcel>4.9<fcel>3.0<fcel>1.4<nl>"
    "<fcel>c3<fcel>-4.7<fcel>1,200<ecel><nl>"
)


def lookup(text: str) -> Lookup:
    return Lookup.of(read_otsl(text).table)


def test_names_come_from_all_header_rows_and_from_groups_of_rows() -> None:
    table = lookup(SPANS)
    assert table.columns == ("sepal len", "sepal wid", "petal len")
    assert table.rows == ("a1", "b2", "c3")
    grouped = lookup(
        "<ecel><lcel><fcel>x<nl><fcel>red<fcel>1<fcel>10<nl><ucel><fcel>2<fcel>20<nl><fcel>blue<fcel>1<fcel>30<nl>"
    )
    assert (grouped.columns, grouped.rows) == (("x",), ("red 1", "red 2", "blue 1"))
    flat = lookup("<fcel>id<fcel>x<nl><fcel>1<fcel>2<nl>")
    assert (flat.columns, flat.rows, flat.body) == (("x",), ("1",), (("2",),))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ('What is the "sepal len" of "b2"?', "4.9"),
        ('What is the "petal len" of "c3"?', NOT_ANSWERABLE),
        ('What is the "len" of "b2"?', NOT_ANSWERABLE),
        ('Which row has "3.5" as its "sepal wid"?', "a1"),
        ('Which row has "1.4" as its "petal len"?', NOT_ANSWERABLE),
        ('Which column of "a1" holds "1.4"?', "petal len"),
        ("How many rows are there?", "3"),
        ("How many columns are there?", "3"),
        ('In how many rows is the "sepal len" greater than "4.8"?', "2"),
        ('In how many rows is the "petal len" greater than "0"?', NOT_ANSWERABLE),
        ('Which row has the highest "sepal wid"?', "c3"),
        ('Which row has the lowest "sepal len"?', "c3"),
        ('Is the "sepal wid" of "b2" greater than that of "c3"?', "no"),
        ('Is the "petal len" of "b2" greater than that of "a1"?', "no"),
        ("What is the meaning of life?", NOT_ANSWERABLE),
        ("", NOT_ANSWERABLE),
    ],
)
def test_answers(question: str, answer: str) -> None:
    assert lookup(SPANS).answer(question) == answer


def test_written_questions_are_answered_by_the_table_alone_and_kinds_take_turns() -> None:
    table = read_otsl(SPANS).table
    questions = write_questions(table, 10, random.Random(0))
    assert len({q.question for q in questions}) == 10
    assert all(Lookup.of(table).answer(q.question) == q.answer for q in questions)
    drawn = (Lookup.of(table).candidates(random.Random(seed)) for seed in range(50))
    by_kind = {question: kind for candidates in drawn for kind, question in candidates}
    assert Counter(by_kind[q.question] for q in questions) == dict.fromkeys(KINDS, 2)
    assert write_questions(table, 10, random.Random(0)) == questions
    assert {by_kind[q.question] for q in write_questions(table, 5, random.Random(0), ("count",))} == {"count"}
    everything = write_questions(table, 10_000, random.Random(0))
    assert len(everything) < 10_000
    assert all(q.answer != NOT_ANSWERABLE for q in everything)


def test_questions_do_not_depend_on_markup_that_otsl_loses() -> None:
    html = "<table><thead><tr><th></th><th>x</th></tr></thead><tbody><tr><td>a</td><td>1</td></tr></tbody></table>"
    table = read_html(html).table
    assert Lookup.of(table) == Lookup.of(read_otsl(write_otsl(table).text).table)


@pytest.mark.parametrize(
    "markup", ["", "<fcel>x<nl>", "<ecel><ecel><nl>", "<fcel>a<lcel><lcel><nl>", "<fcel>a<nl><ucel><nl>"]
)
def test_tables_with_nothing_to_ask(markup: str) -> None:
    table = read_otsl(markup).table if markup else Table()
    assert all("How many" in q.question for q in write_questions(table, 50, random.Random(0)))
    assert Lookup.of(table).answer('What is the "x" of "y"?') == NOT_ANSWERABLE


def test_names_with_quotation_marks_are_not_asked_about() -> None:
    table = read_otsl('<fcel>id<fcel>5" pipe<nl><fcel>a<fcel>"x"<nl>').table
    assert all("How many" in q.question for q in write_questions(table, 50, random.Random(0)))


def test_a_row_whose_name_another_has_is_not_asked_about() -> None:
    table = read_otsl("<fcel>id<fcel>x<nl><fcel>a<fcel>1<nl><fcel>a<fcel>2<nl><fcel>b<fcel>3<nl>").table
    questions = [q.question for q in write_questions(table, 500, random.Random(0))]
    assert questions
    assert not any('of "a"' in question for question in questions)


def test_a_guess_without_the_table() -> None:
    assert answer_without_table('Is the "x" of "a" greater than that of "b"?') == "yes"
    assert answer_without_table('What is the "x" of "a"?') == NOT_ANSWERABLE


def test_shares_of_misread_and_overlooked_cells() -> None:
    rows = "".join(f"<fcel>r{i}" + "".join(f"<fcel>{i}.{j}" for j in range(9)) + "<nl>" for i in range(100))
    table = read_otsl(rows).table
    seen = with_reading_errors(table, random.Random(0), misread=0.2, overlooked=0.1)
    pairs = [(a.text, b.text) for x, y in zip(table.rows, seen.rows, strict=True) for a, b in zip(x, y, strict=True)]
    overlooked = sum(not b for _, b in pairs) / len(pairs)
    misread = [(a, b) for a, b in pairs if b and a != b]
    assert overlooked == pytest.approx(0.1, abs=0.03)
    assert len(misread) / len(pairs) == pytest.approx(0.2, abs=0.04)
    assert all(len(a) == len(b) and sum(x != y for x, y in zip(a, b, strict=True)) == 1 for a, b in misread)
    assert all(b.replace("r", "").replace(".", "").isdigit() for _, b in misread)
    assert with_reading_errors(table, random.Random(0), misread=0.0) == table
