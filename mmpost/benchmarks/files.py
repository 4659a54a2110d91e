"""Read official files of benchmarks: rows with their place, so that a message names file, row and key."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmpost.data.media.media import Media, media
from mmpost.data.readers.json_rows import parse_list
from mmpost.data.readers.tables import open_table
from mmpost.errors import DataError


class Row(NamedTuple):
    """A row of a file, and where it is."""

    where: str
    """File and row, for messages."""
    key: str
    """What names the row in a JSON object of rows; "" in a list."""
    content: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A text. Raises DataError for anything else."""
        value = self.content.get(name)
        if not isinstance(value, str):
            raise DataError(f"{self.where}: wanted a text in {name!r}, found {value!r:.80}; use the official file")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts. Raises DataError for anything else."""
        value = self.content.get(name)
        if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
            raise DataError(
                f"{self.where}: wanted a list of texts in {name!r}, found {value!r:.80}; use the official file"
            )
        return list(value)


def rows(path: Path) -> Iterator[Row]:
    """The rows of a file: JSON lines, a list, an object whose values are rows, or a table (CSV, TSV, Parquet).

    Raises DataError, with the place, for a row that is no object.
    """
    if path.suffix == ".json":
        content = _json_object(path)
        if content is not None:
            for key, value in content.items():
                where = f"{path.name}: {key!r:.60}"
                if not isinstance(value, Mapping):
                    raise DataError(f"{where}: wanted a row, found {value!r:.80}; use the official file")
                yield Row(where, key, value)
            return
    table = open_table(path)
    for index in range(len(table)):
        where, content = f"{path.name}:{table.number(index)}", table.row(index)
        if not isinstance(content, Mapping):
            raise DataError(f"{where}: wanted a row, found {content!r:.80}; use the official file")
        yield Row(where, "", content)


def _json_object(path: Path) -> Mapping[str, Any] | None:
    """The object in a JSON file, if it is one whose values are objects: not JSON lines, of which the first is one."""
    try:
        content = parse_list(path.read_bytes())
    except (DataError, ValueError):  # JSON lines, or damaged: the reader of tables says what is wrong
        return None
    is_object = isinstance(content, Mapping) and any(isinstance(value, Mapping) for value in content.values())
    return content if is_object else None


def medium(folder: Path, names: Sequence[str], modality: str) -> Media:
    """The first of these files in `folder` that exists; else the first, so that opening it says what is missing."""
    paths = [folder / name for name in names]
    return media(next((path for path in paths if os.path.exists(path)), paths[0]), modality)


def picture(row: Row, name: str) -> Media:
    """The picture in a column, as Parquet files hold it. Raises DataError where there is none."""
    if row.content.get(name) is None:
        raise DataError(f"{row.where}: wanted a picture in {name!r}, found none; use the official file")
    return media(row.content[name], "image")


def texts_by_id(path: Path) -> dict[str, str | None] | None:
    """The content of a JSON object whose values are texts or null; None for any other file."""
    if path.suffix != ".json":
        return None
    try:
        content = parse_list(path.read_bytes())
    except (DataError, ValueError):
        return None
    is_object = isinstance(content, dict) and all(value is None or isinstance(value, str) for value in content.values())
    return content if is_object else None
