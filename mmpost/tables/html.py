"""Tables in HTML: reading, writing, and the normal form in which tables of different sources are compared."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, NamedTuple, get_args

import lxml.html
from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]
from lxml.html.defs import empty_tags

from mmpost.errors import DataError
from mmpost.tables.table import MAX_POSITIONS, Cell, Section, SectionTag, Table, fitted, too_large

MAX_CHARACTERS = 200_000
"""Longer markup is not read. The annotations of PubTabNet have at most some ten thousand characters."""

MAX_COLSPAN, MAX_ROWSPAN = 1000, 65534
"""The largest spans of the HTML standard."""

MAX_DEPTH = 50
"""The deepest elements in a cell that are kept; libxml2 cuts documents at a depth of 256."""

SECTIONS = get_args(SectionTag)[1:]
_CONTROL = dict.fromkeys(code for code in range(32) if chr(code) not in "\t\n\r")
"""Control characters, which libxml2 reads, but lxml does not write."""

VERBATIM = frozenset({"script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes", "plaintext"})
"""Elements in which HTML knows no escapes: their tags are left out, because their text could not be written back."""


class Reading(NamedTuple):
    """A table that was read."""

    table: Table
    repairs: tuple[str, ...]
    """What was illegal, and how it was read; empty for legal input."""
    lost: tuple[str, ...]
    """What was legal, but has no place in a `Table`, such as captions and attributes."""


class Parsed(NamedTuple):
    """A parsed document: its root, or None if it is empty, and what the parser had to repair."""

    root: Any
    errors: list[str]


def parse(markup: str) -> Parsed:
    """The document of `markup`, parsed by libxml2, as in the official TEDS; comments are left out.

    Raises DataError above `MAX_CHARACTERS`.
    """
    if len(markup) > MAX_CHARACTERS:
        raise DataError(
            f"HTML: wanted at most {MAX_CHARACTERS} characters, found {len(markup)}; read one table at a time"
        )
    parser = lxml.html.HTMLParser(remove_comments=True, remove_pis=True, encoding="utf-8")
    # Bytes, because lxml refuses text with an encoding declaration; unpaired surrogates would end the document.
    data = markup.encode("utf-8", "replace")
    try:
        root = lxml.html.document_fromstring(data, parser=parser)
    except etree.ParserError:  # "Document is empty"
        return Parsed(None, [])
    return Parsed(root, [f"{error.message} at line {error.line}, column {error.column}" for error in parser.error_log])


def read_html(markup: str, *, strict: bool = True) -> Reading:
    """The first table of an HTML document or fragment; further tables count as lost.

    Tables inside of cells are part of the cell. Inline markup is kept without its attributes.

    Strict, whatever is no well-formed table raises DataError: none at all, markup that the parser repairs, rows or
    cells in the wrong place, text between cells, spans that are no positive integers, cells that overlap or leave gaps.
    Lenient, it is read by these rules, and `Reading.repairs` says where: without a table, the table is empty; elements
    in the wrong place are read as if their tags were missing; cells outside of rows form a row; text outside of cells
    is dropped; a span that is no integer is 1, 0 reaches to the end of the section, and larger ones than in the HTML
    standard are cut; further rules are in `fitted`. Both raise DataError for tables that are too large to read.
    """
    root, errors = parse(markup)
    reader = _Reader(strict)
    for error in errors:
        reader.repair("well-formed HTML", error, "read it as the parser repairs it")
    tables = [] if root is None else list(root.iter("table"))
    if not tables:
        reader.repair("an element <table>", f"{markup!r:.80}", "read it as a table without cells")
        return Reading(Table(), tuple(reader.repairs), ())
    for other in tables[1:]:
        if tables[0] not in other.iterancestors("table"):
            reader.lose("further tables")
    cells = sum(1 for _ in tables[0].iter("td", "th"))
    if cells > MAX_POSITIONS:  # before they are read
        raise too_large(cells)
    sections = reader.sections(tables[0])
    table = fitted(sections, None if strict else reader.repairs)
    return Reading(table, tuple(reader.repairs), tuple(reader.lost))


class _Reader:
    """Reads the parts of one table, and collects what was repaired and what was lost."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.repairs: list[str] = []
        self.lost: dict[str, None] = {}  # a set in the order of appearance

    def repair(self, wanted: str, found: str, repaired: str) -> None:
        if self.strict:
            raise DataError(f"HTML: wanted {wanted}, found {found}; correct it, or read it with strict=False")
        self.repairs.append(f"wanted {wanted}, found {found}: {repaired}")

    def lose(self, what: str) -> None:
        self.lost[what] = None

    def sections(self, table: Any) -> list[Section]:
        """The sections of a table; rows that lie directly in it form sections without a tag."""
        self.attributes(table)
        sections: list[Section] = []
        stray: list[tuple[Cell, ...]] = []
        for child in self.children(table, (*SECTIONS, "tr"), ("caption", "colgroup", "col")):
            if child.tag in SECTIONS:
                if stray:
                    sections.append(Section("", tuple(stray)))
                    stray = []
                self.attributes(child)
                inside = self.children(child, ("tr",), ())
                sections.append(Section(child.tag, tuple(self.row(row) for row in inside)))
            else:
                stray.append(self.row(child))
        return [*sections, Section("", tuple(stray))] if stray else sections

    def children(self, parent: Any, wanted: tuple[str, ...], dropped: tuple[str, ...]) -> Iterator[Any]:
        """The children with the wanted tags; lenient, also those inside of other elements.

        Where rows are wanted, consecutive cells without one are yielded as one row.
        """
        where = f"in <{parent.tag}> at line {parent.sourceline}"
        self.no_text(parent.text, where)
        row: Any = None
        for child in parent:
            if child.tag in wanted:
                if row is not None:
                    yield row
                    row = None
                yield child
            elif child.tag in dropped:
                self.lose(f"<{child.tag}>")
            else:
                names = " or ".join(f"<{name}>" for name in wanted)
                self.repair(
                    f"{names} {where}", f"<{child.tag}>", "read it as if its tags or those around it were left out"
                )
                if child.tag in ("td", "th"):  # here rows are wanted
                    row = lxml.html.Element("tr") if row is None else row
                    row.append(_copied(child))
                else:
                    yield from self.children(child, wanted, dropped)
            self.no_text(child.tail, where)
        if row is not None:
            yield row

    def no_text(self, text: str | None, where: str) -> None:
        if text and text.strip():
            self.repair(f"text only in cells {where}", repr(text.strip()[:40]), "dropped it")

    def row(self, row: Any) -> tuple[Cell, ...]:
        self.attributes(row)
        return tuple(self.cell(cell) for cell in self.children(row, ("td", "th"), ()))

    def cell(self, cell: Any) -> Cell:
        self.attributes(cell, ("rowspan", "colspan"))
        tokens: list[str] = []
        depth = 0
        for event, element in etree.iterwalk(cell, events=("start", "end")):
            inside = element is not cell
            depth += event == "start"
            kept = element.tag not in VERBATIM and depth <= MAX_DEPTH
            depth -= event == "end"
            if event == "start":
                if inside and kept:
                    tokens.append(f"<{element.tag}>")
                    self.attributes(element)
                elif inside:
                    self.lose(f"tags of <{element.tag}>")
                tokens += element.text or ""
            elif inside:
                if kept:
                    tokens.append(f"</{element.tag}>")
                tokens += element.tail or ""
        rowspan, colspan = self.span(cell, "rowspan", MAX_ROWSPAN), self.span(cell, "colspan", MAX_COLSPAN)
        return Cell(tuple(tokens), rowspan, colspan, cell.tag == "th")

    def span(self, cell: Any, name: str, largest: int) -> int:
        value = cell.get(name, "1").strip()
        number = integer(value, 1)
        if value.isdecimal() and 1 <= number <= largest:
            return number
        span = largest if name == "rowspan" and value == "0" else min(max(number, 1), largest)
        wanted = f"a {name} of 1 to {largest} at line {cell.sourceline}"
        self.repair(wanted, repr(value[:40]), "read it as all rows left" if value == "0" else f"read it as {span}")
        return span

    def attributes(self, element: Any, kept: tuple[str, ...] = ()) -> None:
        for name in element.attrib:
            if name not in kept:
                self.lose(f"attribute {name}")


def integer(text: str, otherwise: int) -> int:
    """`text` as an integer, or `otherwise` if it is none, or has too many digits for Python to read."""
    try:
        return int(text)
    except ValueError:
        return otherwise


def _copied(element: Any) -> Any:
    """A copy without the text that follows the element."""
    copied = deepcopy(element)
    copied.tail = None
    return copied


def write_html(table: Table) -> str:
    """`<table>...</table>`, with text escaped, and rowspan before colspan, each only if it is above 1."""
    parts = ["<table>"]
    for tag, rows in table.sections:
        parts.append(f"<{tag}>" if tag else "")
        for row in rows:
            parts += ("<tr>", *map(_cell, row), "</tr>")
        parts.append(f"</{tag}>" if tag else "")
    return "".join([*parts, "</table>"])


def _cell(cell: Cell) -> str:
    spans = (("rowspan", cell.rowspan), ("colspan", cell.colspan))
    attributes = "".join(f' {name}="{span}"' for name, span in spans if span > 1)
    tag = "th" if cell.header else "td"
    return f"<{tag}{attributes}>{markup_of(cell.tokens)}</{tag}>"


def markup_of(tokens: tuple[str, ...]) -> str:
    """The tokens of a cell as HTML: characters are escaped, and void elements have no end tag.

    A carriage return is a reference: parsers read one in the text as a line feed.
    """
    return "".join(
        html.escape(token, quote=False).replace("\r", "&#13;") if len(token) == 1 else token
        for token in tokens
        if not (token.startswith("</") and token[2:-1] in empty_tags)
    )


def normalize(table: Any) -> None:
    """Bring an element `table` into the normal form of OmniDocBench and TRivia, in place.

    Header cells become td; thead, tbody and tfoot are removed around their rows, and span, sup, sub, div and p around
    their content; math becomes `$alttext$`; column groups and attributes of style are dropped. Text is in Unicode NFKC,
    without line breaks and control characters, with single spaces, and without any at the beginning of an element or
    the end of a cell. Unlike in the released normalisers, which work on the markup's text, an escaped `<` stays text.
    """
    for group in list(table.iter("colgroup")):
        group.drop_tree()
    for math in list(table.iter("math")):
        math.text = f"${math.get('alttext', '').translate(_CONTROL)}$"
        math[:] = []
    etree.strip_tags(table, *SECTIONS, "math", "span", "sup", "sub", "div", "p")
    for element in table.iter():
        for name in ("style", "height", "width", "align", "class"):
            element.attrib.pop(name, None)
        if element.tag == "th":
            element.tag = "td"
        element.text, element.tail = _normal(element.text), _normal(element.tail)
    for cell in table.iter("td"):
        last = cell[-1] if len(cell) else None
        if last is None:
            cell.text = (cell.text or "").rstrip(" ")
        else:
            last.tail = (last.tail or "").rstrip(" ")


def normalized_html(markup: str) -> str:
    """The first table of HTML in the normal form of `normalize`; "" without one, or if it has no elements.

    Raises DataError above `MAX_CHARACTERS`.
    """
    root = parse(markup).root
    table = None if root is None else next(root.iter("table"), None)
    if table is None or not len(table):
        return ""
    normalize(table)
    return str(lxml.html.tostring(table, encoding="unicode", with_tail=False))


def _normal(text: str | None) -> str | None:
    if not text:
        return text
    joined = unicodedata.normalize("NFKC", text.translate(_CONTROL).replace("\n", ""))
    single = " ".join(part for part in joined.split()) if joined.strip() else ""
    # A space at the end stays: text follows, or the caller removes it. One at the beginning follows a tag.
    return f"{single} " if single and joined[-1:].isspace() else single
