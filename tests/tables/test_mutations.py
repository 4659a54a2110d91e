"""Seeded mutations of tables: no crash, nothing slower than a second, every score in [0, 1]."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from mmpost.errors import DataError
from mmpost.rewards import table
from mmpost.tables import convert, html, otsl, teds
from mmpost.tables.grammar import Extension
from mmpost.types import Part, Reply, Sample

HTML = (
    "<html><body><table><thead><tr><td></td><td colspan='2'><b>Male</b></td></tr></thead><tbody><tr><td rowspan='2'>"
    "x<sup>2</sup> &lt; 1</td><td>1.5</td><td>a<br>b</td></tr><tr><td>n/a</td><td></td></tr></tbody></table>"
    "</body></html>"
)
OTSL = "<ecel><fcel>Male<lcel><nl>\n<fcel>x2 < 1<fcel>1.5<fcel>a b<nl>\n<ucel><fcel>n/a<ecel><nl>\n"
EXTENDED = (
    "<thead>\n<ecel><ched><b>Male</b><lcel><nl>\n<tbody>\n<fcel>x<sup>2</sup> &lt; 1<fcel>1<ecel><nl>\n"
    "<ucel><fcel>2<ecel><nl>\n</tbody>\n<fcel>a<lcel><lcel><nl>\n"
)
EXTENSIONS: tuple[Extension | None, ...] = (None, "otsl-html")
SOURCES: tuple[tuple[str, Extension | None], ...] = ((HTML, None), (OTSL, None), (EXTENDED, "otsl-html"))
PIECES = (
    *(
        "<table>",
        "</table>",
        "<tr>",
        "</tr>",
        "<td>",
        "</td>",
        "<th>",
        "<thead>",
        "</thead>",
        "<tbody>",
        "<td colspan='3'>",
    ),
    *(
        "<td rowspan='9'>",
        "<td colspan='-1' rowspan='99999999999'>",
        "<b>",
        "</b>",
        "<br>",
        "<!--",
        "-->",
        "<?xml",
        "]]>",
    ),
    *(
        "<fcel>",
        "<ecel>",
        "<lcel>",
        "<ucel>",
        "<xcel>",
        "<nl>",
        "<ched>",
        "<srow>",
        "<tfoot>",
        "<script>",
        "<svg:a b:c='d'>",
    ),
    *(
        "&lt;",
        "&",
        "&#0;",
        "&#xD800;",
        "\x00",
        "\ud800",
        "\x1f",
        "\x85",
        "\u2028",
        "é",
        "\n",
        " ",
        "<",
        ">",
        "'",
        "12.5",
    ),
    *(
        "<answer>",
        "</answer>",
        "<math alttext='x'>",
        "<body>",
        "<frameset>",
        "<html>",
        "</html>",
        "<plaintext>",
        "<textarea>",
    ),
)


NOT_IN_HTML = {"\x00", "\ud800"}
"""Characters that HTML cannot hold."""


def mutated(text: str, draw: random.Random) -> str:
    """A text with some pieces inserted, removed, replaced, repeated or moved."""
    for _ in range(draw.randint(1, 6)):
        start = draw.randint(0, len(text))
        end = min(len(text), start + draw.choice((0, 1, 3, 6, 20, 80)))
        piece = draw.choice((*PIECES, text[start:end] * draw.randint(2, 4), ""))
        place = draw.randint(0, len(text))
        if draw.random() < 0.2:
            text = text[:start] + text[end:]
            text = text[:place] + piece + text[place:]
        else:
            text = text[:start] + piece + text[end:]
        if draw.random() < 0.005:
            text = text[:start] + piece * 300 + text[start:]
    return text


def check(text: str, extension: Extension | None, truth: str) -> None:
    """Everything that reads a table, on one text."""
    for strict in (True, False):
        with suppress(DataError):
            read = html.read_html(text, strict=strict)
            markup = html.write_html(read.table)
            for written in EXTENSIONS:
                converted = otsl.write_otsl(read.table, written)
                again = otsl.read_otsl(converted.text, extension=written)  # what is written is valid
                assert written is None or converted.lost or html.write_html(again.table) == markup
        with suppress(DataError):
            converted = convert.otsl_to_html(text, extension=extension, strict=strict)
            back = html.read_html(converted.text, strict=False)
            assert html.write_html(back.table) == converted.text or NOT_IN_HTML & set(text)
            assert bool(converted.repairs) == bool(otsl.otsl_problems(text, extension))
    sample, reply = Sample("s", (), truth=truth), Reply((Part("text", text),))
    for reward in (table.teds, table.s_teds, table.official_teds, table.table_complete, table.otsl_valid):
        score = reward(sample, reply)
        assert score is not None
        assert 0 <= score <= 1
    for score in (teds.teds(text, HTML), teds.teds(HTML, text, normalized=True), teds.released_teds(text, HTML)):
        assert -1 <= score <= 1


def check_mutations(numbers: range) -> None:
    for number in numbers:
        draw = random.Random(number)
        source, extension = draw.choice(SOURCES)
        text = mutated(source, draw)
        try:
            check(text, extension, (HTML, OTSL, EXTENDED)[number % 3])
        except Exception as e:  # whatever it is, the message must name the case
            raise AssertionError(f"mutation {number}: {text!r:.2000}") from e


def test_some_hundred_mutations() -> None:
    check_mutations(range(300))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 10_000, 2500))
def test_ten_thousand_mutations(first: int) -> None:
    check_mutations(range(first, first + 2500))
