"""Files and folders of rows as Samples: `read(path)`.

A source is told apart by its ending or, for folders, by what lies in it. Rows are parsed when they are asked for; on
opening, one pass over the rows without their media counts the samples.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

from mmpost.data.media.limits import DEFAULT, Limits
from mmpost.data.media.media import Media, media
from mmpost.data.readers import rows
from mmpost.data.readers.tables import Table, open_table
from mmpost.data.sources.base import Indexed, Subset
from mmpost.errors import DataError
from mmpost.types import Sample

_IN_USE: WeakValueDictionary[tuple[Any, ...], Rows] = WeakValueDictionary()
"""Sources that somebody holds: stages and benches that ask for the same unchanged files share one, counted once."""


def read(
    path: str | Path,
    root: str | Path | None = None,
    loss: Literal["all", "last"] = "all",
    prompt: str = "",
    limits: Limits = DEFAULT,
) -> Rows:
    """The samples of a .jsonl, .json or .parquet file, a pattern of Parquet files, or a folder of these or `datasets`.

    A folder may also hold media files, whose truth is the name of the folder in it that they lie in. `prompt` is what
    rows without a question ask. Relative media paths start from `root`, which they may not leave, or without one from
    the folder of the data. Media beyond `limits` raise when they are looked at. Raises DataError for a source that
    cannot be opened; a broken row raises when it is read, with file and number.
    """
    place = Path(path).expanduser().absolute()
    key = (place, None if root is None else str(root), loss, prompt, limits, _stamp(place))
    found = _IN_USE.get(key)
    if found is None:
        found = _IN_USE[key] = Rows(open_table(path), root, loss, prompt, limits)
    return found


class Rows(Indexed):
    """A table as samples: one for each row, or with loss "all" one for each turn of the assistant."""

    def __init__(
        self,
        table: Table,
        root: str | Path | None,
        loss: Literal["all", "last"],
        prompt: str = "",
        limits: Limits = DEFAULT,
    ) -> None:
        self.table, self.prompt, self.limits = table, prompt, limits
        self.name = table.name
        self.root = root
        self.loss: Literal["all", "last"] = loss
        self._counts = array("q")
        self._places = array("d")
        self._again: set[int] = set()
        self._survey()
        self._ends = array("q", accumulate(self._counts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def sample(self, index: int) -> Sample:
        row = bisect_right(self._ends, index)
        turn = index - (self._ends[row - 1] if row else 0)
        return self._samples(row)[turn]

    def where(self, index: int) -> str:
        """File and row of a sample, as its messages name them."""
        return f"{self.table.name}:{self.table.number(bisect_right(self._ends, index))}"

    def medium(self, index: int, value: Any, kind: str) -> Media:
        """What a column of a name of its own says about a medium of sample `index`, found as those of the rows are."""
        return self._media(value, kind)

    def between(self, low: float, high: float) -> Subset:
        """The samples whose rows fall in [low, high) of [0, 1), by a hash of their id (without one: their number)."""
        ends = [0, *self._ends]
        return Subset(
            self, [i for row, at in enumerate(self._places) if low <= at < high for i in range(*ends[row : row + 2])]
        )

    def _asking(self, row: Any) -> Any:
        """`row`, with the prompt where it has no question of its own."""
        if not self.prompt or not isinstance(row, Mapping):
            return row
        asks = any(row.get(name) is not None for name in (*rows.TURNS, *rows.ASKS, "chosen"))
        return row if asks else {**row, rows.ASKS[-1]: self.prompt}

    def _samples(self, row: int) -> list[Sample]:
        where = f"{self.table.name}:{self.table.number(row)}"
        try:
            parsed = rows.parse(self._asking(self.table.row(row)))
            uid = parsed.uid if parsed.uid is not None else where
            uid = f"{uid}@{self.table.number(row)}" if row in self._again else uid
            return rows.samples(parsed, uid, self.loss, self._media)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error

    def _media(self, value: Any, kind: str) -> Media:
        return media(value, kind, self.root, folder=self.table.folder, limits=self.limits)

    def _survey(self) -> None:
        """Count the samples of each row, and note the rows whose id came before: uids must differ."""
        seen: set[str] = set()
        for number, row in enumerate(self.table.light()):
            count = 1
            try:
                parsed = rows.parse(self._asking(row)) if row is not None else None
            except DataError:
                # The row raises when it is read, with its place.
                parsed = None
            if parsed is not None:
                count = self._count(parsed)
                if parsed.uid in seen:
                    self._again.add(number)
                elif parsed.uid is not None:
                    seen.add(parsed.uid)
            self._counts.append(count)
            self._places.append(_place(parsed.uid if parsed and parsed.uid is not None else str(number)))

    def _count(self, parsed: rows.Row) -> int:
        try:
            return max(1, len(rows.spans(parsed, self.loss)))
        except DataError:
            return 1


def _stamp(place: Path) -> tuple[tuple[str, int, int], ...]:
    """Path, time of change and size of each file of a source; empty where there is none."""
    if "*" in place.name:
        files = sorted(place.parent.glob(place.name))
    else:
        files = sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]
    stats = [(str(file), file.stat()) for file in files if file.exists()]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


def _place(name: str) -> float:
    """A number in [0, 1) that depends on `name` alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48
