"""Tables in HTML: what is legal, repairs, limits."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from mmpost.errors import DataError
from mmpost.tables import convert, html
from mmpost.tables.table import Cell, Section, Table

REPAIRED = [
    ("", "an element <table>", "<table></table>"),
    ("<p>text</p>", "an element <table>", "<table></table>"),
    ("<table><tr></tr></table>", "a table with cells", "<table></table>"),
    (
        "<table><tr><td>a</b></td></tr></table>",
        "found Unexpected end tag : b at line 1",
        "<table><tr><td>a</td></tr></table>",
    ),
    ("<table><td>a</td><td>b</td></table>", "<tr> in <table>", "<table><tr><td>a</td><td>b</td></tr></table>"),
    ("<table><tr>x<td>a</td></tr></table>", "text only in cells in <tr>", "<table><tr><td>a</td></tr></table>"),
    ("<table><tr><td>a</td></tr>x</table>", "text only in cells in <table>", "<table><tr><td>a</td></tr></table>"),
    (
        "<table><tbody><div><tr><td>a</td></tr></div></tbody></table>",
        "<tr> in <tbody> at line 1, found <div>",
        "<table><tbody><tr><td>a</td></tr></tbody></table>",
    ),
    ('<table><tr><td colspan="x">a</td></tr></table>', "a colspan of 1 to 1000", "<table><tr><td>a</td></tr></table>"),
    ('<table><tr><td colspan="-2">a</td></tr></table>', "found '-2'", "<table><tr><td>a</td></tr></table>"),
    (
        '<table><tr><td rowspan="0">a</td><td>b</td></tr><tr><td>c</td></tr></table>',
        "a rowspan of 1 to 65534",
        '<table><tr><td rowspan="2">a</td><td>b</td></tr><tr><td>c</td></tr></table>',
    ),
    (
        '<table><thead><tr><td rowspan="2">a</td></tr></thead><tr><td>b</td></tr></table>',
        "row 1, column 1 a rowspan of at most 1",
        "<table><thead><tr><td>a</td></tr></thead><tr><td>b</td></tr></table>",
    ),
    (
        '<table><tr><td>a</td><td rowspan="2">b</td></tr><tr><td colspan="2">c</td></tr></table>',
        "row 2, column 1 2 free columns, found a cell from above after 1",
        '<table><tr><td>a</td><td rowspan="2">b</td></tr><tr><td>c</td></tr></table>',
    ),
    (
        '<table><tr><td>a</td><td rowspan="2">b</td></tr><tr></tr></table>',
        "a cell at each of 2 columns of row 2, found none at column 1",
        '<table><tr><td>a</td><td rowspan="2">b</td></tr><tr><td></td></tr></table>',
    ),
]


@pytest.mark.parametrize(("markup", "problem", "repaired"), REPAIRED)
def test_illegal_html_is_refused_or_repaired(markup: str, problem: str, repaired: str) -> None:
    with pytest.raises(DataError) as raised:
        html.read_html(markup)
    assert problem in str(raised.value)
    assert "wanted" in str(raised.value)
    assert "strict=False" in str(raised.value)
    reading = html.read_html(markup, strict=False)
    assert html.write_html(reading.table) == repaired
    assert any(problem in repair for repair in reading.repairs)
    assert html.read_html(repaired, strict=False).table == reading.table


def test_legal_html_may_leave_out_end_tags_and_bodies() -> None:
    table = Table(
        (Section("thead", ((Cell(("a",), header=True), Cell()),)), Section("", ((Cell(("b",), colspan=2),),)))
    )
    reading = html.read_html("Here:\n<TABLE><thead><tr><th>a<td></thead>\n<tr><td colspan=2>b</table> It is.")
    assert reading == (table, (), ())
    assert html.write_html(table) == (
        '<table><thead><tr><th>a</th><td></td></tr></thead><tr><td colspan="2">b</td></tr></table>'
    )


def test_what_has_no_place_in_a_table_is_reported() -> None:
    markup = (
        '<table border="1"><caption>c</caption><colgroup><col></colgroup><tr><td style="x">'
        '<a href="y">a</a><script>b</script></td></tr></table><table><tr><td>other</td></tr></table>'
    )
    reading = html.read_html(markup)
    assert reading.lost == (
        *("further tables", "attribute border", "<caption>", "<colgroup>", "attribute style", "attribute href"),
        "tags of <script>",
    )
    assert html.write_html(reading.table) == "<table><tr><td><a>a</a>b</td></tr></table>"


def test_a_table_in_a_cell_is_part_of_the_cell() -> None:
    markup = "<table><tr><td>a<table><tr><td>b</td></tr></table>c</td></tr></table>"
    reading = html.read_html(markup)
    assert (len(reading.table.rows), reading.lost) == (1, ())
    assert html.write_html(reading.table) == markup


def test_the_grid_of_a_table_that_is_no_rectangle_is_refused() -> None:
    assert [[p.down for p in row] for row in Table((Section("", ((Cell(rowspan=2), Cell()), (Cell(),))),)).grid()] == [
        [0, 0],
        [1, 0],
    ]
    with pytest.raises(DataError, match="found none at column 2"):
        Table((Section("", ((Cell(), Cell()), (Cell(),))),)).grid()


LARGE = [
    '<table><tr><td colspan="1000">a</td></tr>' + "<tr><td>b</td></tr>" * 5,
    '<table><tr><td rowspan="65534">a</td>' + "<tr>" * 40_000 + "<td>x",
    "<table>" + '<tr><td colspan="1000" rowspan="1000">' * 1000,
    "x" * 200_001,
]


@pytest.mark.parametrize("markup", LARGE, ids=["columns", "rows", "spans", "long"])
def test_tables_that_are_too_large_are_refused(markup: str) -> None:
    with pytest.raises(DataError, match=r"wanted .*at most \d+ .*found"):
        html.read_html(markup, strict=False)


@pytest.mark.slow
@pytest.mark.parametrize("tag", ["<table>", "<td>", "<tr>", "<b>", "<tr><td>", "<tr><td colspan=9>", "<td><table>"])
def test_no_conversion_takes_seconds(tag: str) -> None:
    start = time.process_time()
    with suppress(DataError):  # too large
        convert.html_to_otsl("<table>" + tag * (190_000 // len(tag)), strict=False)
    assert time.process_time() - start < 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "tag", ["<ecel>", "<nl>", "<fcel>x<nl>", "<lcel>", "<fcel><lcel><nl><ucel><xcel><nl>", "<ucel><nl>"]
)
def test_no_conversion_of_otsl_takes_seconds(tag: str) -> None:
    start = time.process_time()
    with suppress(DataError):  # too large
        convert.otsl_to_html(tag * (190_000 // len(tag)), strict=False)
    assert time.process_time() - start < 5
