"""Tables of numbers, a row for each point, from whatever holds them: .npy, .npz, CSV, Parquet, JSON.

A form is told by the first bytes of the content, not by a name. What stands beside the table, one number by name, is
what is known of the whole (`about`): a period, a magnitude. Nothing is ever unpickled.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float64

from mmpost.data.media import limits
from mmpost.errors import DataError


@dataclass(frozen=True, eq=False)
class Points:
    """Points with a place, a value and its error, and numbers about all of them."""

    table: Float64[np.ndarray, "point 3"]
    """Place (a time, a wavelength), value, error of the value; the error is 0 where the file has none."""
    about: Mapping[str, float] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return self.table.nbytes

    def __copy__(self) -> Points:
        return Points(self.table.copy(), dict(self.about))


def read_points(file: BinaryIO, names: Sequence[Sequence[str]]) -> Points:
    """The points in a file; `names` are what its three columns may be called, the usual one first.

    Columns without such names are taken in their order. Raises DataError for a file without points, of another shape,
    or with a number that is not finite.
    """
    columns, about = _content(file.read())
    return checked(_arranged(columns, names), about, names)


def checked(table: Any, about: Mapping[str, Any], names: Sequence[Sequence[str]]) -> Points:
    """`table` [point, 2 or 3] as Points. Raises DataError for any other shape, and for numbers that are not finite."""
    said = ", ".join(n[0] for n in names)
    try:
        found = np.asarray(table, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"Wanted a table of numbers ({said}), found what is no such table ({error}).") from error
    if found.ndim != 2 or found.shape[1] not in (2, 3) or not len(found):
        raise DataError(
            f"Wanted points as rows of {said} (the last may be missing), found an array of shape "
            f"{list(found.shape)}. Drop it, or write one row per point."
        )
    limits.total(found.size, f"{len(found)} points", "Cut it")
    bad = np.flatnonzero(~np.isfinite(found).all(1))
    if len(bad):
        raise DataError(
            f"Wanted finite numbers for {said}, found NaN or infinity in {len(bad)} of {len(found)} points, "
            f"first in point {bad[0] + 1}. Drop these points."
        )
    if found.shape[1] == 2:
        found = np.column_stack([found, np.zeros(len(found))])
    return Points(np.ascontiguousarray(found), {str(k): float(v) for k, v in about.items()})


def write_points(value: Any, names: Sequence[Sequence[str]]) -> bytes:
    """Points, an array [point, 2 or 3], lists of these, or columns by name, as a .npy file with `about` after it."""
    if not isinstance(value, Points):
        if isinstance(value, Mapping):
            columns, about = _parted(value)
            value = checked(_arranged(columns, names), about, names)
        else:
            single = getattr(value, "dtype", None) == np.float32
            value = checked(value, {}, names)
            value = Points(value.table.astype(np.float32), value.about) if single else value
    buffer = io.BytesIO()
    np.save(buffer, value.table, allow_pickle=False)
    if value.about:
        buffer.write(json.dumps(dict(value.about)).encode())
    return buffer.getvalue()


def read_numbers(file: BinaryIO) -> dict[str, float]:
    """Named numbers: a JSON object, a CSV of a head and one line, or a .npz of single numbers. NaN: unknown."""
    blob = file.read()
    if blob[:1] == b"{":
        return numbers(_json(blob))
    columns, about = _content(blob)
    if isinstance(columns, Mapping) and all(len(v) == 1 for v in columns.values()):
        return numbers({**about, **{k: v[0] for k, v in columns.items()}})
    if about and len(columns) == 0:
        return numbers(about)
    raise DataError("Wanted one row of named numbers, found a table. Write {name: number} as JSON, or one line of CSV.")


def numbers(value: Any) -> dict[str, float]:
    """A mapping of names to numbers; None is unknown, which is NaN. Raises DataError for anything else."""
    if not isinstance(value, Mapping) or not value:
        raise DataError(f"Wanted named numbers as {{name: number}}, found {type(value).__name__}: {value!r:.80}.")
    found = {}
    for name, number in value.items():
        try:
            found[str(name)] = np.nan if number is None else float(number)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"Wanted a number for {name!r}, found {number!r:.60}. Correct it, or drop the name."
            ) from error
    return found


Columns = Any
"""Columns by name, or one array [point, column]."""


def _content(blob: bytes) -> tuple[Columns, dict[str, float]]:
    """Columns, and single numbers beside them."""
    if not blob:
        raise DataError("Wanted points, found an empty file. Drop the row.")
    if blob[:6] == b"\x93NUMPY":
        file = io.BytesIO(blob)
        table, rest = np.load(file, allow_pickle=False), file.read()
        return table, numbers(_json(rest)) if rest else {}
    if blob[:2] == b"PK":
        return _npz(blob)
    if blob[:4] == b"PAR1":
        return _parquet(blob)
    if blob.lstrip()[:1] in (b"[", b"{"):
        found = _json(blob)
        return _parted(found) if isinstance(found, Mapping) else (found, {})
    return _csv(blob)


def _npz(blob: bytes) -> tuple[Columns, dict[str, float]]:
    try:
        with np.load(io.BytesIO(blob), allow_pickle=False) as held:
            found = {name: held[name] for name in held.files}
    except zipfile.BadZipFile as error:
        raise DataError(f"Wanted a .npz file, found one that is damaged ({error}). Copy it again.") from error
    columns, about = _parted(found)
    return (next(iter(columns.values())) if len(columns) == 1 else columns), about


def _parquet(blob: bytes) -> tuple[Columns, dict[str, float]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return {k: np.asarray(v) for k, v in pq.read_table(io.BytesIO(blob)).to_pydict().items()}, {}
    except pa.ArrowException as error:
        raise DataError(f"Wanted a Parquet file, found one that does not load ({error}). Copy it again.") from error


def _json(blob: bytes) -> Any:
    try:
        return json.loads(blob)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"Wanted JSON, found what is not ({error}). Mend the file.") from error


def _csv(blob: bytes) -> tuple[Columns, dict[str, float]]:
    """With or without a head; lines that start with # are passed over."""
    try:
        text = blob.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"Wanted .npy, .npz, CSV, Parquet or JSON, found none of these ({error}).") from error
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    rows = list(csv.reader(lines)) if any("," in line for line in lines) else [line.split() for line in lines]
    if not rows:
        raise DataError("Wanted points, found a file without lines. Drop the row.")
    head = None if _numeric(rows[0][0]) else [name.strip() for name in rows.pop(0)]
    widths = {len(row) for row in rows} | ({len(head)} if head else set())
    if len(widths) > 1 or not rows:
        raise DataError(f"Wanted lines of equal length below the head, found lengths {sorted(widths)}. Mend the file.")
    try:
        table = np.array([[float(cell or "nan") for cell in row] for row in rows])
    except ValueError as error:
        raise DataError(f"Wanted numbers in the lines of the CSV file, found text ({error}).") from error
    return (table if head is None else dict(zip(head, table.T, strict=True))), {}


def _numeric(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _parted(found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """Columns, and single numbers; one level of nesting (`about`) is allowed."""
    about = dict(found["about"]) if isinstance(found.get("about"), Mapping) else {}
    rest = {k: v for k, v in found.items() if k != "about" or not about}
    single = {k: float(v) for k, v in rest.items() if np.ndim(v) == 0}
    return {k: v for k, v in rest.items() if k not in single}, {**single, **about}


def _arranged(columns: Columns, names: Sequence[Sequence[str]]) -> Any:
    """The three columns in their order, found by their names where they have any."""
    if not isinstance(columns, Mapping):
        return columns
    lower = {str(name).lower(): value for name, value in columns.items()}
    found = [next((lower[n] for n in among if n in lower), None) for among in names]
    if found[0] is None or found[1] is None:
        wanted = "; ".join(" or ".join(n) for n in names)
        raise DataError(f"Wanted the columns {wanted}; found {', '.join(map(str, columns)) or 'none'}. Rename them.")
    chosen = [np.asarray(c) for c in found if c is not None]
    if len({c.shape for c in chosen}) > 1:
        raise DataError(f"Wanted columns of one length, found {[list(c.shape) for c in chosen]}.")
    return np.column_stack(chosen)
