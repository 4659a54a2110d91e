"""OTSL, the table language of Lysak et al. (2023, arXiv 2305.03393): grammar, validity, and the rectangles of cells.

A table is a grid of tokens, one for each row and column, and `<nl>` after each row. `<fcel>` begins a cell and is
followed by its text, `<ecel>` begins an empty cell; the others continue one: `<lcel>` the cell to the left, `<ucel>`
the cell above, `<xcel>` both. These are C, L, U and X in the paper. Validity is its six rules, and that each cell's
continuations fill a rectangle:

1. the left neighbour of L is L or C;
2. the upper neighbour of U is U or C;
3. the left neighbour of X is X or U, and the upper neighbour is X or L;
4. the first row has only C and L;
5. the first column has only C and U;
6. all rows are equally long.

The rules alone do not suffice: `C L / U C` satisfies all six.

Plain OTSL holds text and spans. The extension "otsl-html" also holds what TEDS compares in HTML: `<thead>`, `<tbody>`
or `<tfoot>` before the first row of a section, whose rows are a grid of their own, and the tag that ends it where rows
without a section follow; `<ched>`, `<rhed>` and `<srow>` (column header, row header and section row, as in docling)
begin cells that are `th`; the text of cells is HTML, with inline tags and escapes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from mmpost.errors import DataError
from mmpost.tables.html import MAX_CHARACTERS
from mmpost.tables.table import MAX_POSITIONS, SectionTag, too_large

Extension = Literal["otsl-html"]

KINDS = {"<fcel>": "C", "<ecel>": "C", "<lcel>": "L", "<ucel>": "U", "<xcel>": "X"}
"""The tokens of plain OTSL, without the end of a row, and their letters in the paper."""
HEADERS = {"<ched>": "C", "<rhed>": "C", "<srow>": "C"}
SECTIONS: dict[str, SectionTag] = {"<thead>": "thead", "<tbody>": "tbody", "<tfoot>": "tfoot"}
SECTION_ENDS = {f"</{tag}>": tag for tag in SECTIONS.values()}
END_OF_ROW = "<nl>"
SPACE = " \t\r\n\f"
"""What counts as white space, as in HTML."""

_PLAIN = re.compile("|".join((*KINDS, END_OF_ROW)))
_EXTENDED = re.compile("|".join((*KINDS, *HEADERS, *SECTIONS, *SECTION_ENDS, END_OF_ROW)))


class Piece(NamedTuple):
    """A token of OTSL and the text up to the next one, stripped of white space around it."""

    token: str
    text: str


Grid = list[list[Piece]]


class Tokens(NamedTuple):
    """OTSL, cut into sections and rows."""

    sections: list[tuple[SectionTag, Grid]]
    problems: list[str]
    """What is illegal about the order of tokens and texts."""
    repaired: list[str]
    """How each of them was read."""


def token_pattern(extension: Extension | None) -> re.Pattern[str]:
    """What matches the tokens of the language; raises DataError for an unknown extension."""
    if extension not in (None, "otsl-html"):
        raise DataError(f"OTSL: wanted the extension otsl-html or None, found {extension!r}; correct the name")
    return _EXTENDED if extension else _PLAIN


def tokenize(text: str, extension: Extension | None = None) -> Tokens:
    """Cut OTSL into sections of rows of tokens with their texts; never fails, and lists what is illegal.

    Raises DataError above `MAX_CHARACTERS` or `MAX_POSITIONS`.
    """
    if len(text) > MAX_CHARACTERS:
        raise DataError(
            f"OTSL: wanted at most {MAX_CHARACTERS} characters, found {len(text)}; read one table at a time"
        )
    matches = list(token_pattern(extension).finditer(text))
    rows = sum(match[0] == END_OF_ROW for match in matches)
    if max(rows, len(matches) - rows) > MAX_POSITIONS:  # before they are read
        raise too_large(max(rows, len(matches) - rows))
    cutter = _Cutter()
    before = text[: matches[0].start()] if matches else text
    if before.strip():
        cutter.problem("a token first", f"{before.strip()!r:.40}", "dropped it")
    if not matches:
        cutter.problem("OTSL tokens, such as <fcel> and <nl>", "none", "read it as a table without cells")
    ends = [*(match.start() for match in matches[1:]), len(text)][: len(matches)]
    for match, end in zip(matches, ends, strict=True):
        cutter.add(match[0], text[match.end() : end].strip(SPACE))
    return cutter.finish()


class _Cutter:
    """Collects rows and sections, and what is illegal about them."""

    def __init__(self) -> None:
        self.sections: list[tuple[SectionTag, Grid]] = []
        self.tag: SectionTag = ""
        self.grid: Grid = []
        self.row: list[Piece] = []
        self.num_rows = 0
        self.problems: list[str] = []
        self.repaired: list[str] = []

    def problem(self, wanted: str, found: str, repaired: str) -> None:
        self.problems.append(f"wanted {wanted}, found {found}")
        self.repaired.append(repaired)

    def add(self, token: str, text: str) -> None:
        number = self.num_rows + 1
        where = f"row {number}, column {len(self.row) + 1}"
        if text and token not in ("<fcel>", *HEADERS):
            if token == "<ecel>":
                self.problem(f"no text after <ecel> at {where}", f"{text!r:.40}", "read it as <fcel>")
            else:
                self.problem(f"no text after {token} at {where}", f"{text!r:.40}", "dropped it")
                text = ""
        if token == END_OF_ROW:
            if not self.row:
                self.problem(f"cells before <nl> in row {number}", "none", "dropped the row")
            self.end_row()
        elif token in SECTIONS or token in SECTION_ENDS:
            if self.row:
                self.problem(f"<nl> before {token} at {where}", "none", "ended the row")
            if token in SECTION_ENDS and self.tag != SECTION_ENDS[token]:
                self.problem(f"<{SECTION_ENDS[token]}> before {token} at {where}", f"{self.tag!r}", "ended the section")
            self.end_row()
            self.end_section(SECTIONS.get(token, ""))
        else:
            self.row.append(Piece(token, text))

    def end_row(self) -> None:
        if self.row:
            self.grid.append(self.row)
            self.num_rows += 1
            self.row = []

    def end_section(self, tag: SectionTag) -> None:
        if self.grid or self.tag:
            self.sections.append((self.tag, self.grid))
        self.tag, self.grid = tag, []

    def finish(self) -> Tokens:
        if self.row:
            self.problem("<nl> after the last row", f"{self.row[-1].token}", "ended the row")
        self.end_row()
        self.end_section("")
        return Tokens(self.sections, self.problems, self.repaired)


def letter(piece: Piece) -> str:
    """C, L, U or X."""
    return KINDS.get(piece.token) or HEADERS[piece.token]


def broken_rules(grid: Sequence[Sequence[str]]) -> list[str]:
    """Where a grid of the letters C, L, U and X breaks the six rules (Lysak et al. 2023); empty if nowhere."""
    broken = []
    for r, row in enumerate(grid):
        if len(row) != len(grid[0]):
            broken.append(
                f"rule 6: wanted rows of equal length, found {len(row)} in row {r + 1} and {len(grid[0])} in row 1"
            )
        above = grid[r - 1] if r else []
        for c, kind in enumerate(row):
            left, upper = row[c - 1] if c else "", above[c] if c < len(above) else ""
            where = f"at row {r + 1}, column {c + 1}"
            if r == 0 and kind in "UX":
                broken.append(f"rule 4: wanted C or L in the first row, found {kind} {where}")
            if c == 0 and kind in "LX":
                broken.append(f"rule 5: wanted C or U in the first column, found {kind} {where}")
            if kind == "L" and c and left not in ("L", "C"):
                broken.append(f"rule 1: wanted L or C to the left of L {where}, found {left}")
            if kind == "U" and r and upper not in ("U", "C"):
                broken.append(f"rule 2: wanted U or C above U {where}, found {upper or 'nothing'}")
            if kind == "X" and c and left not in ("X", "U"):
                broken.append(f"rule 3: wanted X or U to the left of X {where}, found {left}")
            if kind == "X" and r and upper not in ("X", "L"):
                broken.append(f"rule 3: wanted X or L above X {where}, found {upper or 'nothing'}")
    return broken


class Block(NamedTuple):
    """The rectangle of a cell, in rows and columns."""

    row: int
    column: int
    rowspan: int
    colspan: int


def blocks(grid: Sequence[Sequence[str]]) -> tuple[list[Block], list[str]]:
    """The rectangles of the cells of a grid of C, L, U and X, in reading order, and where they are not filled.

    A cell is as wide as the run of L to its right, and as high as the run of U below it, as far as the positions
    between them are X; below the first row where they are not, it ends. Positions that are then in no rectangle are
    blocks of their own. In this way no position is in two. All rows must be equally long.
    """
    height, width = len(grid), len(grid[0]) if grid else 0
    found, problems = [], []
    covered = [[False] * width for _ in range(height)]
    for r, row in enumerate(grid):
        for c, kind in enumerate(row):
            if covered[r][c]:
                continue
            rowspan = colspan = 1
            if kind == "C":
                while c + colspan < width and row[c + colspan] == "L":
                    colspan += 1
                while r + rowspan < height and grid[r + rowspan][c] == "U":
                    below = grid[r + rowspan][c + 1 : c + colspan]
                    if any(k != "X" for k in below):
                        wanted = f"X in row {r + rowspan + 1}, columns {c + 2} to {c + colspan}"
                        problems.append(f"wanted {wanted}, within the cell of row {r + 1}, found {' '.join(below)}")
                        break
                    rowspan += 1
            else:
                problems.append(f"wanted a cell that {kind} at row {r + 1}, column {c + 1} continues, found none")
            found.append(Block(r, c, rowspan, colspan))
            for line in covered[r : r + rowspan]:
                line[c : c + colspan] = [True] * colspan
    return found, problems
