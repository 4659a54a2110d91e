"""Questions about a table that can be written and answered exactly: of cells, rows, columns, counts and comparisons.

A stand-in for the language models of TRivia (arXiv 2512.01248) that needs none: `write_questions` writes questions in
a fixed wording, `Lookup` answers questions of that wording from any recognised table and says "not answerable" to
others. Names of rows and columns are quoted, so that they may hold any text but quotation marks.

Markup such as OTSL does not tell header cells. The header is taken to be the first row and, while a cell of it spans
columns or a row below is covered by one of its cells, the rows after it; likewise for the first columns, which name the
rows.
"""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from functools import cached_property

from mmpost.tables.questions import NOT_ANSWERABLE, Question
from mmpost.tables.table import Cell, Position, Table

KINDS = ("cell", "row", "column", "count", "comparison")
"""What questions ask for."""

_NAME = '"([^"]*)"'
_PATTERNS: tuple[tuple[str, str], ...] = (
    ("value", f"What is the {_NAME} of {_NAME}\\?"),
    ("row_of", f"Which row has {_NAME} as its {_NAME}\\?"),
    ("column_of", f"Which column of {_NAME} holds {_NAME}\\?"),
    ("rows", "How many rows are there\\?"),
    ("columns", "How many columns are there\\?"),
    ("rows_above", f"In how many rows is the {_NAME} greater than {_NAME}\\?"),
    ("extreme", f"Which row has the (highest|lowest) {_NAME}\\?"),
    ("greater", f"Is the {_NAME} of {_NAME} greater than that of {_NAME}\\?"),
)
_WORDINGS = {name: re.compile(pattern) for name, pattern in _PATTERNS}


@dataclass(frozen=True)
class Lookup:
    """The names of a table's columns and rows, and the texts of its body."""

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    """By row and column; without header rows and naming columns."""

    @classmethod
    def of(cls, table: Table) -> Lookup:
        """Raises DataError for cells that do not fill a rectangle."""
        grid = table.grid()
        if not grid:
            return cls((), (), ())
        top = _header(grid)
        left = _naming(grid[top:] or grid)
        columns = tuple(_name([row[c] for row in grid[:top]]) for c in range(left, len(grid[0])))
        rows = tuple(_name(row[:left]) for row in grid[top:])
        return cls(columns, rows, tuple(tuple(_text(p) for p in row[left:]) for row in grid[top:]))

    def answer(self, question: str) -> str:
        """The exact answer, or `NOT_ANSWERABLE` for a table without it and for any other wording."""
        for name, pattern in _WORDINGS.items():
            match = pattern.fullmatch(question.strip())
            if match is not None:
                answer = getattr(self, f"_{name}")(*match.groups())
                return NOT_ANSWERABLE if answer is None else str(answer)
        return NOT_ANSWERABLE

    def _column(self, name: str) -> int | None:
        """The index of the only column of that name."""
        return self.columns.index(name) if self._column_counts[name] == 1 else None

    def _row(self, name: str) -> int | None:
        return self.rows.index(name) if self._row_counts[name] == 1 else None

    @cached_property
    def _column_counts(self) -> Counter[str]:
        return Counter(self.columns)

    @cached_property
    def _row_counts(self) -> Counter[str]:
        return Counter(self.rows)

    def _cell(self, column: str, row: str) -> str | None:
        c, r = self._column(column), self._row(row)
        return None if c is None or r is None else self.body[r][c] or None

    def _numbers(self, column: str) -> list[Decimal] | None:
        """The values of a column, if all of them are numbers."""
        c = self._column(column)
        values = [] if c is None else [_number(row[c]) for row in self.body]
        numbers = [value for value in values if value is not None]
        return numbers if numbers and len(numbers) == len(values) else None

    # One method for each wording; None where the table has no answer.

    def _value(self, column: str, row: str) -> str | None:
        return self._cell(column, row)

    def _row_of(self, value: str, column: str) -> str | None:
        c = self._column(column)
        rows = [] if c is None else [name for name, row in zip(self.rows, self.body, strict=True) if row[c] == value]
        return rows[0] if len(rows) == 1 else None

    def _column_of(self, row: str, value: str) -> str | None:
        r = self._row(row)
        found = [] if r is None else [c for c, text in zip(self.columns, self.body[r], strict=True) if text == value]
        return found[0] if len(found) == 1 else None

    def _rows(self) -> int | None:
        return len(self.rows) or None

    def _columns(self) -> int | None:
        return len(self.columns) or None

    def _rows_above(self, column: str, bound: str) -> int | None:
        numbers, limit = self._numbers(column), _number(bound)
        return None if numbers is None or limit is None else sum(number > limit for number in numbers)

    def _extreme(self, which: str, column: str) -> str | None:
        numbers = self._numbers(column)
        if numbers is None:
            return None
        extreme = max(numbers) if which == "highest" else min(numbers)
        return self.rows[numbers.index(extreme)] if numbers.count(extreme) == 1 else None

    def _greater(self, column: str, one: str, other: str) -> str | None:
        first, second = (_number(self._cell(column, row) or "") for row in (one, other))
        return None if first is None or second is None else "yes" if first > second else "no"

    # The questions of each kind.

    def candidates(self, rng: random.Random) -> Iterator[tuple[str, str]]:
        """(kind, question) of what may be asked; some have no answer. Each cell is compared with one other."""
        columns, rows = ([name for name in names if name and '"' not in name] for names in (self.columns, self.rows))
        for row in rows:
            for column in columns:
                yield "cell", f'What is the "{column}" of "{row}"?'
                value = self._cell(column, row)
                if value is not None and '"' not in value:
                    yield "row", f'Which row has "{value}" as its "{column}"?'
                    yield "column", f'Which column of "{row}" holds "{value}"?'
                    yield "count", f'In how many rows is the "{column}" greater than "{value}"?'
                other = rng.choice(rows)
                if other != row:
                    yield "comparison", f'Is the "{column}" of "{row}" greater than that of "{other}"?'
        for column in columns:
            for extreme in ("highest", "lowest"):
                yield "comparison", f'Which row has the {extreme} "{column}"?'
        yield "count", "How many rows are there?"
        yield "count", "How many columns are there?"


def write_questions(table: Table, n: int, rng: random.Random, kinds: Sequence[str] = KINDS) -> list[Question]:
    """At most `n` different questions about a table with their answers; kinds take turns, in random order.

    Questions that the table does not answer are left out, such as those of a row whose name another row has.
    """
    lookup = Lookup.of(table)
    by_kind: dict[str, list[str]] = {kind: [] for kind in kinds}
    for kind, question in lookup.candidates(rng):
        if kind in by_kind:
            by_kind[kind].append(question)
    for questions in by_kind.values():
        rng.shuffle(questions)
    written: list[Question] = []
    while len(written) < n and any(by_kind.values()):
        for questions in by_kind.values():
            while questions and len(written) < n:
                question = questions.pop()
                answer = lookup.answer(question)
                if answer != NOT_ANSWERABLE:
                    written.append(Question(question, answer))
                    break
    return written


def answer_without_table(question: str) -> str:
    """What a reader without the table would guess: "yes" where the answer is yes or no, else `NOT_ANSWERABLE`."""
    return "yes" if _WORDINGS["greater"].fullmatch(question.strip()) else NOT_ANSWERABLE


def with_reading_errors(table: Table, rng: random.Random, misread: float, overlooked: float = 0.0) -> Table:
    """The table as a reader with errors takes it: a share of the cells is misread, another taken for empty.

    One character of a misread cell, a digit if it has one, becomes another of its class (digit, letter); cells without
    any stay as they are.
    """
    sections = []
    for section in table.sections:
        rows = (tuple(_with_errors(cell, rng, misread, overlooked) for cell in row) for row in section.rows)
        sections.append(section._replace(rows=tuple(rows)))
    return Table(tuple(sections))


def _with_errors(cell: Cell, rng: random.Random, misread: float, overlooked: float) -> Cell:
    chance = rng.random()
    if chance < overlooked:
        return replace(cell, tokens=())
    return replace(cell, tokens=_misread(cell.tokens, rng)) if chance < overlooked + misread else cell


def _misread(tokens: tuple[str, ...], rng: random.Random) -> tuple[str, ...]:
    for alphabet in (string.digits, string.ascii_letters):
        places = [i for i, token in enumerate(tokens) if token in alphabet and len(token) == 1]
        if places:
            place = rng.choice(places)
            others = [c for c in alphabet if c.lower() != tokens[place].lower()]
            return (*tokens[:place], rng.choice(others), *tokens[place + 1 :])
    return tokens


def _header(grid: Sequence[Sequence[Position]]) -> int:
    """How many leading rows are header: the first, and all that it needs to name what its cells span."""
    size = 1
    while size < len(grid) - 1 and (
        any(p.right for p in grid[size - 1] if p.cell.text) or any(p.down for p in grid[size])
    ):
        size += 1
    return size


def _naming(grid: Sequence[Sequence[Position]]) -> int:
    """How many leading columns name the rows of a body: the first, and those after a column with cells of many rows."""
    size, width = 1, len(grid[0]) if grid else 0
    while size < width - 1 and (
        any(row[size - 1].down for row in grid if row[size - 1].cell.text) or any(row[size].right for row in grid)
    ):
        size += 1
    return min(size, width)


def _name(positions: Sequence[Position]) -> str:
    """The texts of the cells at these positions, each cell once."""
    return " ".join(dict.fromkeys(_text(p) for p in positions if _text(p)))


def _text(position: Position) -> str:
    return " ".join(position.cell.text.split())


def _number(text: str) -> Decimal | None:
    try:
        value = Decimal(text.replace(",", "").removesuffix("%").strip())
    except InvalidOperation:
        return None
    return value if value.is_finite() else None
