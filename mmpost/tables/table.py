"""A table as sections of rows of cells, and the grid that its cells fill.

Cells carry `tokens`, as the annotations of PubTabNet do (arXiv 1911.10683): each character of text is a token, and so
is each start or end tag of inline markup, `("<b>", "4", "</b>")`. A character is never mistaken for a tag, because tags
have at least three characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from mmpost.errors import DataError

MAX_POSITIONS = 5_000
"""Rows times columns of the largest grid that is read: a single span could ask for a billion positions."""

SectionTag = Literal["", "thead", "tbody", "tfoot"]
"""The element that holds rows; empty for rows that lie directly in the table."""


@dataclass(frozen=True)
class Cell:
    """A cell, with the numbers of rows and columns that it spans."""

    tokens: tuple[str, ...] = ()
    rowspan: int = 1
    colspan: int = 1
    header: bool = False
    """Whether it is a `th`."""

    @property
    def text(self) -> str:
        """The characters without tags; a line break (`<br>`) is a space."""
        return "".join(" " if token == "<br>" else token for token in self.tokens if len(token) == 1 or token == "<br>")


class Section(NamedTuple):
    """Rows of one part of a table. Cells do not span sections."""

    tag: SectionTag
    rows: tuple[tuple[Cell, ...], ...]


class Position(NamedTuple):
    """What lies at one row and column of a grid: a cell, and how far the position is from the cell's first one."""

    cell: Cell
    down: int
    right: int


@dataclass(frozen=True)
class Table:
    """A table as HTML writes it: each cell is in the row where it begins."""

    sections: tuple[Section, ...] = ()

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        """All rows, from top to bottom."""
        return [row for section in self.sections for row in section.rows]

    def grid(self) -> list[list[Position]]:
        """The cell at each row and column; raises DataError if the cells do not fill a rectangle without overlap."""
        return [row for section in _fill(self.sections, None).grids for row in section]


class Filled(NamedTuple):
    """Sections whose cells fill their grids."""

    sections: tuple[Section, ...]
    grids: list[list[list[Position]]]


def fitted(sections: Sequence[Section], repairs: list[str] | None = None) -> Table:
    """The table with these sections, whose cells must fill a rectangle without overlap.

    Cells are placed as in HTML: each at the first free column of its row. Without `repairs`, anything else raises
    DataError. With it, what was changed is appended to it: a span that leaves its section or runs into another cell
    ends before, positions that no cell covers get empty cells, and rows of tables without any cell are removed. A grid
    above `MAX_POSITIONS` always raises DataError.
    """
    return Table(_fill(sections, repairs).sections)


def _fill(sections: Sequence[Section], repairs: list[str] | None) -> Filled:
    first, placed = 0, []
    for section in sections:
        placed.append(_place(section, first, repairs))
        first += len(section.rows)
    width = max((column + 1 for grid in placed for row in grid for column in row), default=0)
    if width * first > MAX_POSITIONS:
        raise too_large(width * first)
    if not width:
        if first:
            _repair(repairs, f"a table with cells, found {first} rows without any", "removed them", "add cells")
        return Filled((), [])
    first, filled, grids = 0, [], []
    for section, grid in zip(sections, placed, strict=True):
        for number, row in enumerate(grid):
            gaps = [column for column in range(width) if column not in row]
            if gaps:
                found = (
                    f"a cell at each of {width} columns of row {first + number + 1}, found none at column {gaps[0] + 1}"
                )
                _repair(repairs, found, f"added {len(gaps)} empty cells", "add empty cells or correct the spans")
            row.update((column, Position(Cell(), 0, 0)) for column in gaps)
        ordered = [[row[column] for column in range(width)] for row in grid]
        rows = (tuple(p.cell for p in row if p.down == p.right == 0) for row in ordered)
        filled.append(Section(section.tag, tuple(rows)))
        grids.append(ordered)
        first += len(grid)
    return Filled(tuple(filled), grids)


def _place(section: Section, first: int, repairs: list[str] | None) -> list[dict[int, Position]]:
    """Row by row, the positions that cells cover, by column; `first` is the number of the section's first row."""
    grid: list[dict[int, Position]] = [{} for _ in section.rows]
    covered = 0
    for r, row in enumerate(section.rows):
        column = 0
        for cell in row:
            while column in grid[r]:
                column += 1
            where = f"row {first + r + 1}, column {column + 1}"
            rowspan, colspan = min(cell.rowspan, len(grid) - r), 1
            while colspan < cell.colspan and column + colspan not in grid[r] and colspan <= MAX_POSITIONS:
                colspan += 1
            if rowspan < cell.rowspan:
                found = f"at {where} a rowspan of at most {rowspan}, the rows left in its section, found {cell.rowspan}"
                _repair(repairs, found, f"shortened it to {rowspan}", "correct the rowspan")
            if colspan < cell.colspan:
                found = f"at {where} {cell.colspan} free columns, found a cell from above after {colspan}"
                _repair(repairs, found, f"shortened the colspan to {colspan}", "correct the spans")
            covered += rowspan * colspan
            if covered > MAX_POSITIONS:
                raise too_large(covered)
            cell = replace(cell, rowspan=rowspan, colspan=colspan)
            for down in range(rowspan):
                grid[r + down].update((column + right, Position(cell, down, right)) for right in range(colspan))
            column += colspan
    return grid


def _repair(repairs: list[str] | None, wanted_and_found: str, repaired: str, advice: str) -> None:
    if repairs is None:
        raise DataError(f"table: wanted {wanted_and_found}; {advice}, or read it with strict=False")
    repairs.append(f"wanted {wanted_and_found}: {repaired}")


def too_large(positions: int) -> DataError:
    """The error for a table of at least so many positions."""
    return DataError(
        f"table: wanted a grid of at most {MAX_POSITIONS} positions, found at least {positions}; correct the spans or "
        "split the table"
    )


def plain(tokens: Iterable[str]) -> bool:
    """Whether the tokens of a cell are characters only."""
    return all(len(token) == 1 for token in tokens)
