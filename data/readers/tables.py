"""Files and folders as tables of rows, read by index."""

from __future__ import annotations

import json
import mimetypes
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mmpost.data.media.modalities import modalities
from mmpost.data.readers import rows
from mmpost.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "training", "test", "testmini", "val", "valid", "validation", "dev", "eval")


Opener = Callable[[Path], Sequence[Mapping[str, Any]]]
_OPENERS: dict[str, Opener] = {}


def register_opener(suffix: str, rows: Opener) -> None:
    """Read files that end in `suffix` by `rows`, the released form of some dataset.

    For ".json" this applies to files that hold a mapping: lists of rows need no opener. A later call replaces an
    earlier one for the same suffix.
    """
    _OPENERS[suffix] = rows


class Table(Protocol):
    """Rows by index, read on demand. A row that cannot be read raises DataError without its place."""

    name: str
    folder: Path
    """Where relative media paths start."""

    def __len__(self) -> int: ...

    def row(self, index: int) -> Mapping[str, Any]: ...

    def number(self, index: int) -> int:
        """What a person would call the row, counted from 1."""
        ...

    def light(self) -> Iterator[Mapping[str, Any] | None]:
        """All rows in order, without media where that saves reading them; None for a row that cannot be read."""
        ...


def open_table(path: str | Path) -> Table:
    """A .jsonl, .json or .parquet file, a pattern of Parquet files, or a folder of `datasets`, Parquet or media.

    Other endings are read by whoever registered them (`register_opener`).
    """
    place = Path(path).expanduser()
    if "*" in place.name:
        return _parquet(sorted(place.parent.glob(place.name)), place)
    if not place.exists():
        raise DataError(f"Wanted a file or folder of data, found nothing at {place}. Correct the path.")
    if place.is_dir():
        return _folder(place)
    openers: dict[str, Callable[[Path], Table]] = {
        ".jsonl": JsonLines,
        ".json": _json,
        ".parquet": lambda file: _parquet([file], file),
    }
    suffix = place.suffix.lower()
    if suffix in openers:
        return openers[suffix](place)
    if suffix in _OPENERS:
        return Listed(_OPENERS[suffix](place), place.name, place.parent)
    raise DataError(
        f"Wanted a file that ends in {', '.join([*openers, *_OPENERS])}, or a folder; found {place}. Convert it, or "
        "train a task that reads the released files of its dataset (.csv and .txt: task=temporal_r1)."
    )


class JsonLines:
    """One JSON object a line; blank lines are passed over. Only the places of the lines are held in memory."""

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
            return _parsed(file.readline())

    def number(self, index: int) -> int:
        return self._numbers[index]

    def light(self) -> Iterator[Mapping[str, Any] | None]:
        with self._path.open("rb") as file:
            for line in file:
                if line.strip():
                    try:
                        yield _parsed(line)
                    except DataError:
                        # Raised again, with its place, when the row is read.
                        yield None


class Listed:
    """Rows in memory."""

    def __init__(self, found: Sequence[Any], name: str, folder: Path) -> None:
        self.name, self.folder, self._rows = name, folder, found

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Mapping[str, Any]:
        return self._rows[index]

    def number(self, index: int) -> int:
        return index + 1

    def light(self) -> Iterator[Mapping[str, Any] | None]:
        return iter(self._rows)


class Arrow:
    """A `datasets` table, mapped from disk. Rows are taken before its features decode anything."""

    def __init__(self, data: Dataset, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self._data = data.with_format("arrow")
        known = {*rows.TURNS, *rows.ASKS, "chosen"}
        if not known & set(data.column_names):
            raise DataError(
                f"{name}: wanted a column of one of the known formats: {rows.FORMATS}. "
                f"Found the columns {', '.join(data.column_names)}. Rename them."
            )

    def __len__(self) -> int:
        return len(self._data)

    def row(self, index: int) -> Mapping[str, Any]:
        return self._pylist(self._data[index : index + 1])[0]

    def number(self, index: int) -> int:
        return index + 1

    def light(self) -> Iterator[Mapping[str, Any] | None]:
        heavy = {name for kind in modalities() for name in (kind.name, f"{kind.name}s")}
        kept = self._data.select_columns([name for name in self._data.column_names if name not in heavy])
        for batch in kept.iter(batch_size=1000):
            yield from self._pylist(batch)

    @staticmethod
    def _pylist(table: Any) -> list[dict[str, Any]]:
        """`datasets` says mapping, and hands out a pyarrow table."""
        return table.to_pylist()


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"Wanted one JSON object on the line, found {line[:60]!r} ({error}). Mend the line.") from error


def _json(path: Path) -> Table:
    """A list of rows; a file of JSON Lines under this ending is read as such."""
    text = path.read_bytes()
    try:
        found = json.loads(text.decode("utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        if text.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{") and getattr(error, "msg", "") == "Extra data":
            return JsonLines(path)
        raise DataError(
            f"{path}: wanted a JSON list of rows, found a file that is not JSON ({error}). Mend it."
        ) from error
    if isinstance(found, dict) and ".json" in _OPENERS:
        return Listed(_OPENERS[".json"](path), path.name, path.parent)
    if not isinstance(found, list):
        raise DataError(
            f"{path}: wanted a JSON list of rows, found {type(found).__name__}. "
            "Store the rows as a list, or one a line in a .jsonl file."
        )
    return Listed(found, path.name, path.parent)


def _folder(place: Path) -> Table:
    """A folder that `Dataset.save_to_disk` made, or one that holds Parquet files of one split."""
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
        return Arrow(data, place.name, place)
    files = sorted(place.rglob("*.parquet"))
    media = [] if files else _media_rows(place)
    if media:
        return Listed(media, place.name, place)
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
    """A row for each file in `place`, or in a folder in it, whose ending is that of a registered kind of media.

    Its id is the path within `place`; files in a folder have that folder's name as solution.
    """
    names = {kind.name for kind in modalities()}
    found = []
    for file in sorted(place.rglob("*")):
        kind = (mimetypes.guess_type(file.name)[0] or "").partition("/")[0]
        if kind in names and file.is_file():
            inner = file.relative_to(place)
            row = {"id": inner.as_posix(), kind: str(file.absolute())}
            found.append({**row, "solution": inner.parts[0]} if len(inner.parts) > 1 else row)
    return found


def _parquet(files: Sequence[Path], place: Path) -> Table:
    """Through `datasets`, which maps a copy in its cache: rows of any index are cheap, whatever the row groups."""
    import datasets
    from datasets.exceptions import DatasetGenerationError

    if not files:
        raise DataError(f"Wanted Parquet files, found none that fit {place}.")
    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        data = datasets.Dataset.from_parquet([str(file) for file in files])
    except (OSError, ValueError, DatasetGenerationError) as error:
        reason = error.__cause__ or error
        raise DataError(
            f"{place}: wanted Parquet files with the same columns, found what cannot be read as such "
            f"({type(reason).__name__}: {reason}). Write the files again."
        ) from error
    finally:
        if not shown:
            datasets.enable_progress_bars()
    folder = place if place.is_dir() else place.parent
    return Arrow(data, place.name, folder)
