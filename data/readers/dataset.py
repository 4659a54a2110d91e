"""Opens files and folders of rows as samples: `open_dataset(path)`.

The format follows from the suffix or, for folders, from their content. Rows are parsed on demand; opening takes one
pass over the rows, without their media, to count the samples.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

from mmpost.data.media.limits import DEFAULT, Limits
from mmpost.data.media.media import Media, media
from mmpost.data.readers import overlooked, rows
from mmpost.data.readers.tables import ArrowTable, Opener, Table, open_table
from mmpost.data.sources.base import Indexed, Subset
from mmpost.errors import DataError
from mmpost.types import Sample

_OPEN: WeakValueDictionary[tuple[Any, ...], Rows] = WeakValueDictionary()
"""Datasets in use: stages and benches that open the same unchanged files share one, which is scanned once."""


def open_dataset(
    path: str | Path,
    root: str | Path | None = None,
    loss: Literal["all", "last"] = "all",
    prompt: str = "",
    limits: Limits = DEFAULT,
    openers: Mapping[str, Opener] | None = None,
    media_columns: tuple[str, ...] = (),
) -> Rows:
    """Open a .jsonl, .json, .parquet, .csv or .tsv file, a glob pattern of Parquet files, or a folder of these or of
    `datasets`.

    A folder may also hold media files; their truth is the name of the subfolder they are in. Rows without a question
    ask `prompt`. With `loss` "all", each assistant turn is a sample, with "last" only the last one. Relative media
    paths start from `root`, which they may not leave, or without one from the folder of the data. Media beyond `limits`
    raise when they are read. `openers`: as in `open_table`; `media_columns`: further columns whose media the caller
    reads. Raises DataError for a source that cannot be opened or has no rows; a broken row raises it when the row is
    read, with file and row number.
    """
    place = Path(path).expanduser().absolute()
    try:
        place.exists()
    except OSError as e:  # a name that no file can have
        raise DataError(f"data: wanted the path of a file or folder, found {str(path)!r:.60}...: {e.strerror}") from e
    key = (
        place,
        None if root is None else str(root),
        loss,
        prompt,
        limits,
        *(openers or {}).items(),
        media_columns,
        _stamp(place),
    )
    dataset = _OPEN.get(key)
    if dataset is None:
        table = open_table(path, openers)
        if isinstance(table, ArrowTable) and not prompt:
            table.check_columns()
        dataset = _OPEN[key] = Rows(table, root, loss, prompt, limits, media_columns)
    if not len(dataset):
        raise DataError(f"{str(path)[:300]}: wanted rows, found none. Write rows to it, or name another file.")
    return dataset


class Rows(Indexed):
    """The rows of a table as samples: one per row, or with loss "all" one per assistant turn."""

    def __init__(
        self,
        table: Table,
        root: str | Path | None,
        loss: Literal["all", "last"],
        prompt: str = "",
        limits: Limits = DEFAULT,
        media_columns: tuple[str, ...] = (),
    ) -> None:
        self.media_columns = media_columns
        """Columns whose media whoever uses the rows reads."""
        self._named: set[str] = set()
        self.table, self.prompt, self.limits = table, prompt, limits
        self.name = table.name
        self.root = root
        self.loss: Literal["all", "last"] = loss
        self._counts = array("q")
        self._positions = array("d")
        self._repeated_ids: set[int] = set()
        self._scan()
        self._ends = array("q", accumulate(self._counts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def sample(self, index: int) -> Sample:
        row = bisect_right(self._ends, index)
        turn = index - (self._ends[row - 1] if row else 0)
        return self._samples(row)[turn]

    def where(self, index: int) -> str:
        """File and row of a sample, for messages."""
        return f"{self.table.name}:{self.table.number(bisect_right(self._ends, index))}"

    def medium(self, index: int, value: Any, modality: str) -> Media:
        """Resolve a medium that a row names in a non-standard column, like those in standard columns."""
        return self._media(value, modality)

    def between(self, low: float, high: float) -> Subset:
        """The samples of rows whose hash (of the id, else the row number) falls in [low, high) of [0, 1)."""
        ends = [0, *self._ends]
        return Subset(
            self,
            [
                i
                for row, position in enumerate(self._positions)
                if low <= position < high
                for i in range(*ends[row : row + 2])
            ],
        )

    def _with_prompt(self, row: Any) -> Any:
        """`row`, with the prompt added if it has no question."""
        if not self.prompt or not isinstance(row, Mapping):
            return row
        has_question = any(row.get(name) is not None for name in (*rows.TURN_KEYS, *rows.QUESTION_KEYS, "chosen"))
        return row if has_question else {**row, rows.QUESTION_KEYS[-1]: self.prompt}

    def _samples(self, row: int) -> list[Sample]:
        where = f"{self.table.name}:{self.table.number(row)}"
        try:
            parsed = rows.parse(self._with_prompt(self.table.row(row)))
            uid = parsed.uid if parsed.uid is not None else where
            uid = f"{uid}@{self.table.number(row)}" if row in self._repeated_ids else uid
            read = rows.samples(parsed, uid, self.loss, self._media)
            self._name("column", where, overlooked.unread_media(parsed, read, self.media_columns))
            self._name("placeholder", where, overlooked.left_placeholder(read))
            return [replace(sample, where=where) for sample in read]
        except DataError as error:
            raise DataError(f"{where}: {error}") from error

    def _name(self, kind: str, where: str, message: str) -> None:
        """Print what looks like a mistake, for the first row of each kind."""
        if message and kind not in self._named:
            self._named.add(kind)
            print(f"{where}: {message} (Further rows are not named.)", file=sys.stderr)

    def _media(self, value: Any, modality: str) -> Media:
        return media(value, modality, self.root, folder=self.table.folder, limits=self.limits)

    def _scan(self) -> None:
        """Count the samples of each row, and find rows with repeated ids, since uids must be unique."""
        seen: set[str] = set()
        for number, row in enumerate(self.table.light()):
            count = 1
            try:
                parsed = rows.parse(self._with_prompt(row)) if row is not None else None
            except DataError:
                # Reading the row will raise again, with file and row number.
                parsed = None
            if parsed is not None:
                count = self._count(parsed)
                if parsed.uid in seen:
                    self._repeated_ids.add(number)
                elif parsed.uid is not None:
                    seen.add(parsed.uid)
            self._counts.append(count)
            self._positions.append(_hash_position(parsed.uid if parsed and parsed.uid is not None else str(number)))

    def _count(self, parsed: rows.Row) -> int:
        try:
            return max(1, len(rows.spans(parsed, self.loss)))
        except DataError:
            return 1


def _stamp(place: Path) -> tuple[tuple[str, int, int], ...]:
    """Path, modification time and size of each file of a source; empty if there is none."""
    if "*" in place.name:
        files = sorted(place.parent.glob(place.name))
    else:
        files = sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]
    stats = [(str(file), file.stat()) for file in files if file.exists()]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


def _hash_position(name: str) -> float:
    """Hash `name` to a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48
