"""The printed report of a check: sections and findings as they appear, and a verdict at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from mmpost.core.display import fitted, visible
from mmpost.errors import MmpostError

WIDTH = 100
"""Line width if the output is not a terminal."""
MAX_LISTED = 10
"""Maximum number of findings printed per check; the others are only counted."""


class Report:
    """Prints sections, tables and findings, and counts errors and warnings."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        if not self.console.is_terminal:
            self.console.width = WIDTH
        self.errors = self.warnings = 0

    def section(self, title: str) -> None:
        self.console.print()
        self.console.rule(f"[bold]{escape(visible(title))}", align="left", style="dim")

    def say(self, text: str) -> None:
        """Print a paragraph of plain text."""
        self.console.print(Padding(escape(visible(text)), (0, 0, 0, 2)), highlight=False)

    def table(self, *columns: str, rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
        """Print a table of plain text; `right` lists the columns to align right."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        for i, name in enumerate(columns):
            table.add_column(name, justify="right" if i in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(escape(visible(cell)) for cell in row))
        self.console.print(Padding(table, (0, 0, 0, 2)))

    def error(self, *texts: str) -> None:
        """Report findings of one check that would make a run fail or pointless."""
        self.errors += len(texts)
        self._list("[bold red]error  [/]", texts)

    def warn(self, *texts: str) -> None:
        """Report findings of one check that do not keep a run from training."""
        self.warnings += len(texts)
        self._list("[bold yellow]warning[/]", texts)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Report an exception inside as an error and continue; MMPOST_TRACEBACK=1 raises it instead."""
        try:
            yield
        except Exception as e:
            if os.environ.get("MMPOST_TRACEBACK"):
                raise
            unexpected = f"{type(e).__name__}: {e} (set MMPOST_TRACEBACK=1 for the traceback)"
            self.error(str(e) if isinstance(e, MmpostError) else unexpected)

    def verdict(self) -> int:
        """Print the verdict; returns 1 if there were errors, else 0."""
        self.console.print()
        counts = f"{_count(self.errors, 'error')}, {_count(self.warnings, 'warning')}"
        if self.errors:
            self.console.print(f"[bold red]not ready[/]: {counts}", highlight=False)
            return 1
        self.console.print(f"[bold green]ready to train[/]: {counts}", highlight=False)
        return 0

    def _list(self, mark: str, texts: Sequence[str]) -> None:
        for text in texts[:MAX_LISTED]:
            table = Table.grid(padding=(0, 1))
            table.add_column(width=7, no_wrap=True)
            table.add_column(overflow="fold")
            table.add_row(mark, escape(visible(fitted(text))))
            self.console.print(Padding(table, (0, 0, 0, 2)))
        if len(texts) > MAX_LISTED:
            self.say(f"        and {len(texts) - MAX_LISTED} more")


def _count(n: int, word: str) -> str:
    return f"{n} {word}" + ("" if n == 1 else "s")


def number(value: float) -> str:
    """Format a number: 3,400 or 0.0123."""
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.3g}"


def memory(n: float) -> str:
    """Format a number of bytes: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if n < 1024:
            return f"{n:.0f} {unit}"
        n /= 1024
    return f"{n:.1f} GiB"
