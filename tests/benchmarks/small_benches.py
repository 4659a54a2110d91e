"""A few questions of each benchmark in the form of its official files: sets/NAME.py holds them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

from pyarrow import Table, parquet


def small(name: str) -> ModuleType:
    """`FILES`: the official files by name, as texts or as rows of Parquet; `gold`: a right reply to a sample."""
    return import_module(f"tests.benchmarks.sets.{name}")


def write_questions(name: str, folder: Path) -> None:
    """Write the official files of a benchmark."""
    folder.mkdir(parents=True)
    for file, content in small(name).FILES.items():
        (folder / file).parent.mkdir(exist_ok=True)
        if isinstance(content, str):
            (folder / file).write_text(content)
        else:
            parquet.write_table(Table.from_pylist(content), folder / file)
