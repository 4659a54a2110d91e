"""Files and folders as tables with random access to their rows."""

from __future__ import annotations

import csv
import json
import mimetypes
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mmpost.data.media.modalities import modalities
from mmpost.data.readers import rows
from mmpost.data.readers.delimited import DELIMITERS, read_records
from mmpost.data.readers.json_rows import parse_list, parse_row
from mmpost.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "training", "test", "testmini", "val", "valid", "validation", "dev", "eval")


class Table(Protocol):
    """Random access to rows, read on demand. A broken row raises DataError without file and row number."""

    name: str
    folder: Path
    """The folder that relative media paths start from."""

    def __len__(self) -> int: ...

    def row(self, index: int) -> Mapping[str, Any]: ...

    def number(self, index: int) -> int:
        """The row number for messages, counted from 1 (the line number, where rows are lines)."""
        ...

    def light(self) -> Iterator[Mapping[str, Any] | None]:
        """Iterate over all rows, without media where that is faster; None for a row that cannot be read."""
        ...


Opener = Callable[[Path], "Sequence[Mapping[str, Any]] | RowList | None"]
"""Reads a file in the released form of some dataset as rows; None for a file that is not in this form.

A `RowList` has its own numbers of rows, and may hold DataErrors instead of rows.
"""


def open_table(path: str | Path, openers: Mapping[str, Opener] | None = None) -> Table:
    """Open a .jsonl, .json, .parquet, .csv or .tsv file, a pattern of Parquet files, or a folder of `datasets`,
    Parquet or media.

    `openers`: readers of released files by suffix, which a task names; they come first. Raises DataError for anything
    else.
    """
    place = Path(path).expanduser()
    if "*" in place.name:
        return _parquet(sorted(place.parent.glob(place.name)), place)
    if not place.exists():
        raise DataError(f"Wanted a file or folder of data, found nothing at {str(place)[:300]}. Correct the path.")
    if place.is_dir():
        return _folder(place)
    released = (openers or {}).get(place.suffix.lower())
    readers: dict[str, Callable[[Path], Table]] = {
        ".jsonl": JsonLines,
        ".json": lambda file: _json(file, released),
        ".parquet": lambda file: _parquet([file], file),
        **dict.fromkeys(DELIMITERS, _delimited),
    }
    suffix = place.suffix.lower()
    if released is not None and suffix != ".json":
        rows = _released(released, place)
        if rows is not None:
            return rows
    if suffix in readers:
        return readers[suffix](place)
    raise DataError(
        f"Wanted a file that ends in {', '.join(dict.fromkeys([*readers, *(openers or ())]))}, or a folder; found "
        f"{place}. Convert it, or train the task that reads the released files of its dataset."
    )


class JsonLines:
    """One JSON object per line; blank lines are skipped. Only the offsets of the lines are kept in memory."""

    def __init__(self, path: Path) -> None:
        self.name, self.folder, self._path = path.name, path.parent, path
        self._starts, self._numbers = array("q"), array("q")
        place = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    self._starts.append(place)
                    self._numbers.append(number)
                place += len(line)

    def __len__(self) -> int:
        return len(self._starts)

    def row(self, index: int) -> Mapping[str, Any]:
        with self._path.open("rb") as file:
            file.seek(self._starts[index])
            return parse_row(file.readline())

    def number(self, index: int) -> int:
        return self._numbers[index]

    def light(self) -> Iterator[Mapping[str, Any] | None]:
        with self._path.open("rb") as file:
            for line in file:
                if line.strip():
                    try:
                        yield parse_row(line)
                    except DataError:
                        # Reading the row will raise again, with file and row number.
                        yield None


class RowList:
    """Rows in memory; a DataError among them is raised where it is read as a row."""

    def __init__(self, rows: Sequence[Any], name: str, folder: Path, numbers: Sequence[int] | None = None) -> None:
        """`numbers`: the line that each row starts on; by default rows are numbered from 1."""
        self.name, self.folder, self._rows, self._numbers = name, folder, rows, numbers

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Mapping[str, Any]:
        row = self._rows[index]
        if isinstance(row, DataError):
            raise DataError(str(row))
        return row

    def number(self, index: int) -> int:
        return index + 1 if self._numbers is None else self._numbers[index]

    def light(self) -> Iterator[Mapping[str, Any] | None]:
        return (None if isinstance(row, DataError) else row for row in self._rows)


class ArrowTable:
    """A memory-mapped `datasets` table. Rows are read as Arrow data, before `datasets` would decode media features."""

    def __init__(self, data: Dataset, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self._data = data.with_format("arrow")

    def check_columns(self) -> None:
        """Raise DataError unless a column holds what rows ask, in one of the known formats."""
        known = {*rows.TURN_KEYS, *rows.QUESTION_KEYS, "chosen"}
        if not known & set(self._data.column_names):
            raise DataError(
                f"{self.name}: wanted a column of one of the known formats: {rows.FORMATS}. Found the columns "
                f"{', '.join(self._data.column_names)}. Rename them, or set data.prompt if all rows ask the same."
            )

    def __len__(self) -> int:
        return len(self._data)

    def row(self, index: int) -> Mapping[str, Any]:
        return self._pylist(self._data[index : index + 1])[0]

    def number(self, index: int) -> int:
        return index + 1

    def light(self) -> Iterator[Mapping[str, Any] | None]:
        media_columns = {name for m in modalities() for name in (m.name, f"{m.name}s")}
        light = self._data.select_columns([name for name in self._data.column_names if name not in media_columns])
        for batch in light.iter(batch_size=1000):
            yield from self._pylist(batch)

    @staticmethod
    def _pylist(table: Any) -> list[dict[str, Any]]:
        """With the format "arrow", `datasets` returns pyarrow tables, contrary to its annotations."""
        return table.to_pylist()


def _released(opener: Opener, path: Path) -> RowList | None:
    """The rows of a released file. Raises DataError for one that is damaged, or has another structure."""
    try:
        rows = opener(path)
        return rows if rows is None or isinstance(rows, RowList) else RowList(rows, path.name, path.parent)
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as e:
        raise DataError(
            f"{path}: wanted the file as it was released, found one that cannot be read ({type(e).__name__}: {e}); "
            "copy it again"
        ) from e


def _delimited(path: Path) -> Table:
    """Read a table of rows in CSV or TSV."""
    rows, numbers = read_records(path)
    return RowList(rows, path.name, path.parent, numbers)


def _json(path: Path, released: Opener | None = None) -> Table:
    """Read a JSON list of rows, JSON Lines with the suffix .json, or what `released` reads."""
    text = path.read_bytes()
    try:
        content = parse_list(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        if text.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{") and getattr(error, "msg", "") == "Extra data":
            return JsonLines(path)
        raise DataError(
            f"{path}: wanted a JSON list of rows, found a file that is not JSON ({error}). Correct it."
        ) from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if released is not None and (rows := _released(released, path)) is not None:
        return rows
    if not isinstance(content, list):
        raise DataError(
            f"{path}: wanted a JSON list of rows, found {type(content).__name__}. "
            "Store the rows as a list, or one a line in a .jsonl file."
        )
    return RowList(content, path.name, path.parent)


def _folder(place: Path) -> Table:
    """Open a folder written by `Dataset.save_to_disk`, or one with media files or Parquet files of a single split."""
    import datasets

    if (place / "dataset_dict.json").exists():
        names = sorted(p.name for p in place.iterdir() if p.is_dir())
        if len(names) != 1:
            raise DataError(f"Wanted one split, found the splits {', '.join(names)} in {place}. Give {place}/<split>.")
        place = place / names[0]
    if (place / "state.json").exists():
        try:
            data = datasets.load_from_disk(str(place))
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{place}: wanted a folder of `datasets`, found one that does not load ({error})."
            ) from error
        assert not isinstance(data, datasets.DatasetDict)
        return ArrowTable(data, place.name, place)
    files = sorted(place.rglob("*.parquet"))
    media = [] if files else _media_rows(place)
    if media:
        return RowList(media, place.name, place)
    if not files:
        found = ", ".join(sorted(p.name for p in place.iterdir())[:10]) or "nothing"
        raise DataError(
            f"Wanted media files, Parquet files or a folder saved by `datasets`, found {found} in {place}. Name a file."
        )
    names = {re.split(r"[-_.]", file.name)[0] for file in files} | {file.parent.name for file in files}
    splits = sorted(names & set(SPLITS))
    if len(splits) > 1:
        raise DataError(
            f"Wanted Parquet files of one split, found {', '.join(splits)} in {place}. "
            f"Give a pattern, such as {files[0].parent}/{splits[0]}*.parquet."
        )
    return _parquet(files, place)


def _media_rows(place: Path) -> list[dict[str, Any]]:
    """One row per file in `place` and its subfolders whose MIME type is that of a registered modality.

    The id is the path relative to `place`; files in a subfolder have its name as solution.
    """
    names = {modality.name for modality in modalities()}
    media = []
    for file in sorted(place.rglob("*")):
        modality = (mimetypes.guess_type(file.name)[0] or "").partition("/")[0]
        if modality in names and file.is_file():
            relative = file.relative_to(place)
            row = {"id": relative.as_posix(), modality: str(file.absolute())}
            media.append({**row, "solution": relative.parts[0]} if len(relative.parts) > 1 else row)
    return media


def _parquet(files: Sequence[Path], place: Path) -> Table:
    """Open Parquet files via `datasets`, whose memory-mapped copy gives fast random access whatever the row groups."""
    import datasets
    import pyarrow.parquet as pq
    from datasets.exceptions import DatasetGenerationError

    if not files:
        raise DataError(f"Wanted Parquet files, found none that fit {place}.")
    was_disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        # `datasets` reads no file without rows.
        files = [file for file in files if pq.read_metadata(file).num_rows]
        if not files:
            raise DataError(f"{place}: wanted rows, found Parquet without any. Write the file again, or name another.")
        data = datasets.Dataset.from_parquet([str(file) for file in files])
    except DataError:
        raise
    except (OSError, ValueError, DatasetGenerationError) as error:
        reason = error.__cause__ or error
        raise DataError(
            f"{place}: wanted Parquet files with the same columns, found files that cannot be loaded together "
            f"({type(reason).__name__}: {reason}). Write the files again."
        ) from error
    finally:
        if not was_disabled:
            datasets.enable_progress_bars()
    folder = place if place.is_dir() else place.parent
    return ArrowTable(data, place.name, folder)
