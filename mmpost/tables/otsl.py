"""OTSL (Lysak et al. 2023, arXiv 2305.03393): validity, reading and writing; `mmpost.tables.grammar` defines it."""

from __future__ import annotations

import re
from typing import NamedTuple

from mmpost.errors import DataError
from mmpost.tables.grammar import (
    END_OF_ROW,
    HEADERS,
    SPACE,
    Extension,
    Grid,
    Piece,
    Tokens,
    blocks,
    broken_rules,
    letter,
    token_pattern,
    tokenize,
)
from mmpost.tables.html import Reading, markup_of, read_html
from mmpost.tables.table import MAX_POSITIONS, Cell, Position, Section, Table, fitted, plain, too_large


class Written(NamedTuple):
    """Markup, and what it could not hold."""

    text: str
    lost: tuple[str, ...]


def _padded(grid: Grid, width: int) -> Grid:
    return [row + [Piece("<ecel>", "")] * (width - len(row)) for row in grid]


def _width(tokens: Tokens) -> int:
    width = max((len(row) for _, grid in tokens.sections for row in grid), default=0)
    positions = width * sum(len(grid) for _, grid in tokens.sections)
    if positions > MAX_POSITIONS:
        raise too_large(positions)
    return width


def otsl_problems(text: str, extension: Extension | None = None) -> list[str]:
    """Why `text` is no valid OTSL: what was wanted, what was found, and where; empty if it is valid.

    Valid are texts that `read_otsl` reads strictly, which implies the six rules. Rows and columns count from 1. Raises
    DataError for a table that is too large to read.
    """
    tokens = tokenize(text, extension)
    problems = _grid_problems(tokens)
    if extension:
        for piece in (piece for _, grid in tokens.sections for row in grid for piece in row):
            try:
                _content(piece, strict=True)
            except DataError as e:
                problems.append(str(e))
    return problems


def _grid_problems(tokens: Tokens) -> list[str]:
    """What is illegal about the tokens, whatever the texts of cells are."""
    problems = [*tokens.problems]
    width = _width(tokens)
    for tag, grid in tokens.sections:
        where = f"{tag}: " if tag else ""
        letters = [[letter(piece) for piece in row] for row in grid]
        broken = [f"{where}{problem}" for problem in broken_rules(letters)]
        if not broken and any(len(row) != width for row in grid):
            broken = [f"{where}rule 6: wanted rows of {width} tokens, as in other sections, found {len(grid[0])}"]
        problems += broken or [f"{where}{problem}" for problem in blocks(letters)[1]]
    return problems


def read_otsl(text: str, *, extension: Extension | None = None, strict: bool = True) -> Reading:
    """The table of a text in OTSL; white space around the texts of cells does not count.

    Strict, invalid OTSL raises DataError with the first of `otsl_problems`. Lenient, it is read by these rules, and
    `Reading.repairs` says where: text before the first token and after tokens other than those of cells is dropped;
    `<ecel>` with text is `<fcel>`; rows without tokens are dropped; a missing `<nl>` is added at the end; short rows
    are filled up with `<ecel>`; a cell's rectangle is what `blocks` says, and tokens that continue no cell are empty
    cells. Text without any token is a table without cells. Both raise DataError for tables that are too large to read.
    """
    tokens = tokenize(text, extension)
    problems = _grid_problems(tokens) if strict else []
    if problems:
        raise DataError(f"OTSL: {problems[0]}; correct it, or read it with strict=False")
    width = _width(tokens)
    repairs = [f"{problem}: {how}" for problem, how in zip(tokens.problems, tokens.repaired, strict=True)]
    sections, lost = [], {}  # lost is a set in the order of appearance
    for tag, grid in tokens.sections:
        short = sum(len(row) != width for row in grid)
        if short:
            repairs.append(f"rule 6: wanted rows of {width} tokens, found {short} shorter ones: added <ecel>")
        padded = _padded(grid, width)
        found, problems = blocks([[letter(piece) for piece in row] for row in padded])
        repairs += [f"{problem}: ended the cell, or read the token as <ecel>" for problem in problems]
        rows: list[list[Cell]] = [[] for _ in padded]
        for block in found:
            piece = padded[block.row][block.column]
            header = piece.token in HEADERS
            content = _content(piece, strict) if extension else _Content(tuple(piece.text))
            repairs += content.repairs
            lost.update(dict.fromkeys(content.lost))
            rows[block.row].append(Cell(content.tokens, block.rowspan, block.colspan, header))
        sections.append(Section(tag, tuple(map(tuple, rows))))
    return Reading(fitted(sections, None if strict else repairs), tuple(repairs), tuple(lost))


class _Content(NamedTuple):
    """The content of a cell in HTML, and what was repaired and lost."""

    tokens: tuple[str, ...]
    repairs: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def _content(piece: Piece, strict: bool) -> _Content:
    """Read the text of a cell as HTML; raises DataError if it is illegal and `strict`."""
    text = piece.text
    if "<" not in text and "&" not in text:
        return _Content(tuple(text))
    try:
        reading = read_html(f"<table><tr><td>{text}</td></tr></table>", strict=strict)
    except DataError as e:
        raise DataError(f"text {text!r:.60} of {piece.token}: {e}") from e
    cells = [cell for row in reading.table.rows for cell in row]
    split = f"wanted the content of one cell after {piece.token}, found {text!r:.60}"
    if strict and len(cells) != 1:
        raise DataError(f"OTSL: {split}; escape < as &lt;, or read it with strict=False")
    repairs = reading.repairs if len(cells) == 1 else (*reading.repairs, f"{split}: left out the tags of tables")
    return _Content(tuple(token for cell in cells for token in cell.tokens), repairs, reading.lost)


def write_otsl(table: Table, extension: Extension | None = None, *, line_breaks: bool = True) -> Written:
    """A table as OTSL, with a line per row or, without `line_breaks`, in one; and what that could not hold.

    Plain OTSL holds neither sections nor `th` nor inline tags (a line break becomes a space), and no white space around
    texts or line ends in them; OTSL tokens in a text are broken up by a space. The extension "otsl-html" holds all of
    these except elements in cells that are called like its tokens. The cells of `table` must fill a rectangle, or it
    raises DataError; tables from `read_html` and `read_otsl` do.
    """
    pattern = token_pattern(extension)
    lines, lost = [], _Lost()
    grid, first, before = table.grid(), 0, ""
    for tag, rows in table.sections:
        if extension and before and not tag:
            lines.append(f"</{before}>")
        before = tag
        if tag and extension:
            lines.append(f"<{tag}>")
        elif tag:
            lost.add(f"<{tag}>")
        for row in grid[first : first + len(rows)]:
            columns = tag in ("", "thead")
            lines.append("".join(_written(p, extension, pattern, columns, lost) for p in row) + END_OF_ROW)
        first += len(rows)
    return Written(("\n" if line_breaks else "").join(lines), lost.report())


class _Lost:
    """What a conversion loses, and how often."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def add(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def report(self) -> tuple[str, ...]:
        return tuple(f"{what}, {n} times" if n > 1 else what for what, n in self.counts.items())


def _written(
    position: Position, extension: Extension | None, pattern: re.Pattern[str], columns: bool, lost: _Lost
) -> str:
    cell, down, right = position
    if down or right:
        return "<xcel>" if down and right else "<ucel>" if down else "<lcel>"
    if extension:
        text = _extended_text(cell, pattern, lost)
        if cell.header:
            return f"{'<ched>' if columns else '<rhed>'}{text}"
    else:
        text = _plain_text(cell, pattern, lost)
    return f"<fcel>{text}" if text else "<ecel>"


def _plain_text(cell: Cell, pattern: re.Pattern[str], lost: _Lost) -> str:
    if cell.header:
        lost.add("<th>")
    if not plain(cell.tokens):
        for tag in dict.fromkeys(token for token in cell.tokens if len(token) > 1 and not token.startswith("</")):
            lost.add(f"{tag} in a cell")
    text = re.sub(r"[\r\n]", " ", cell.text).strip(SPACE)
    if text != cell.text:
        lost.add("white space in a cell")
    return _without_tokens(text, pattern, lost)


def _extended_text(cell: Cell, pattern: re.Pattern[str], lost: _Lost) -> str:
    tokens = []
    for token in cell.tokens:
        if len(token) > 1 and pattern.fullmatch(token.replace("</", "<")):
            lost.add(f"{token} in a cell")
        else:
            tokens.append(token)
    text = markup_of(tuple(tokens))
    # White space around the text is written as references, which reading does not strip.
    body = text.strip(SPACE)
    head, _, tail = text.partition(body) if body else (text, "", "")
    return "".join((_references(head), re.sub(r"[\r\n]", lambda m: _references(m[0]), body), _references(tail)))


def _references(text: str) -> str:
    return "".join(f"&#{ord(character)};" for character in text)


def _without_tokens(text: str, pattern: re.Pattern[str], lost: _Lost) -> str:
    def broken(match: re.Match[str]) -> str:
        lost.add(f"the text {match[0]}")
        return f"< {match[0][1:]}"

    return pattern.sub(broken, text)
