"""The released OTSL converter: all published conversions, its errors among them."""

from __future__ import annotations

import pytest

from mmpost.errors import DataError
from mmpost.tables.convert import otsl_to_html
from mmpost.tables.released import released_otsl_to_html

PUBLISHED = [
    ("<fcel>A<lcel><nl><fcel>1<fcel>2<nl>", ['<td colspan="2">A</td>', "<td>1</td><td>2</td>"]),
    ("<fcel>a<fcel>b<nl><ucel><fcel>c<nl>", ['<td rowspan="2">a</td><td>b</td>', "<td>c</td>"]),
    (
        "<fcel>a<lcel><fcel>b<nl><ucel><xcel><fcel>c<nl>",
        ['<td rowspan="2" colspan="2">a</td><td>b</td>', "<td>c</td>"],
    ),
    ("<fcel>a<fcel>b<fcel>c<nl><fcel>d<nl>", ["<td>a</td><td>b</td><td>c</td>", "<td>d</td><td></td><td></td>"]),
    ("<lcel><fcel>b<nl>", ["<td></td><td>b</td>"]),
    ("<fcel>a<fcel>b<nl><fcel>c<xcel><nl>", ['<td>a</td><td rowspan="2">b</td>', '<td colspan="2">c</td>']),
    ("<fcel>a<nl><nl><fcel>b<nl>", ["<td>a</td>", "<td></td>"]),
    ("pre<fcel>a<nl>", ["<td></td>"]),
    ("<ecel>x<fcel>y<nl>", ["<td></td><td>y</td>"]),
    ("<fcel> <b>1 < 2 <nl>", ["<td><b>1 < 2</td>"]),
]


@pytest.mark.parametrize("newline", ["", "\n"])
@pytest.mark.parametrize(("text", "rows"), PUBLISHED)
def test_published_conversions(text: str, rows: list[str], newline: str) -> None:
    expected = f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
    assert released_otsl_to_html(text.replace("<nl>", f"<nl>{newline}")) == expected


def test_text_without_tokens_is_empty() -> None:
    assert released_otsl_to_html("no tags") == released_otsl_to_html("") == ""


@pytest.mark.parametrize("text", [text for text, _ in PUBLISHED[:3]])
def test_on_valid_otsl_both_converters_agree(text: str) -> None:
    assert released_otsl_to_html(text) == otsl_to_html(text).text == otsl_to_html(text, strict=False).text


@pytest.mark.parametrize("text", ["x" * 200_001, "<ecel>" * 5_001])
def test_tables_that_are_too_large_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="at most"):
        released_otsl_to_html(text)
