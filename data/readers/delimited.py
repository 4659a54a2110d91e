"""Tables of rows in CSV and TSV files: a line of column names, then one row per record; empty cells are left out."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpost.data.readers.json_rows import problem
from mmpost.errors import DataError

DELIMITERS: Mapping[str, str] = {".csv": ",", ".tsv": "\t"}


def read_records(path: Path) -> tuple[list[Any], list[int]]:
    """The rows, with a DataError for each that cannot be used, and the number of the line that each starts on.

    Raises DataError for a file without distinct column names.
    """
    # Cells may hold whole media as text (data URLs).
    csv.field_size_limit(sys.maxsize)
    rows: list[Any] = []
    numbers: list[int] = []
    # Bytes that are not UTF-8 become lone surrogates, which `problem` finds, so that they cost one row.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=DELIMITERS[path.suffix.lower()])
        names = next(reader, [])
        if len(set(names)) < len(names) or not all(names) or not all(map(str.isprintable, names)):
            raise DataError(
                f"{path.name}:1: wanted a line with the names of the columns, each once, found "
                f"{', '.join(map(ascii, names))[:200]}. Correct it."
            )
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                rows.append(DataError(f"Wanted a record of cells, found one that cannot be read ({error})."))
                numbers.append(number)
                continue
            if cells is None:
                return rows, numbers
            if cells:
                rows.append(_row(names, cells))
                numbers.append(number)


def _row(names: list[str], cells: list[str]) -> Any:
    if len(cells) != len(names):
        return DataError(
            f"Wanted {len(names)} cells ({', '.join(names)[:200]}), found {len(cells)}. Put quotes around cells with "
            "delimiters or line breaks."
        )
    row = {name: cell for name, cell in zip(names, cells, strict=True) if cell}
    found = problem(row)
    return DataError(found) if found else row
