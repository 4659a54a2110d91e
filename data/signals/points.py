"""Reads tables of points in any common format: .npy, .npz, CSV, Parquet, JSON.

The format follows from the first bytes of the content, not from a file name. Single named numbers next to the table
describe the whole (`about`): a period, a magnitude. Nothing is ever unpickled.
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
    """Points with x, value and error, and named numbers about the whole."""

    table: Float64[np.ndarray, "point 3"]
    """x (time or wavelength), value, and error of the value (0 if the file has none)."""
    about: Mapping[str, float] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return self.table.nbytes

    def __copy__(self) -> Points:
        return Points(self.table.copy(), dict(self.about))


def read_points(file: BinaryIO, names: Sequence[Sequence[str]]) -> Points:
    """Read the points in a file; `names` lists the accepted names of its three columns, the usual one first.

    Columns without names are taken in order. Raises DataError for a file without points, of another shape, or with
    numbers that are not finite.
    """
    columns, about = _content(file.read())
    return check_points(_in_order(columns, names), about, names)


def check_points(table: Any, about: Mapping[str, Any], names: Sequence[Sequence[str]]) -> Points:
    """Convert `table` [point, 2 or 3] to Points. Raises DataError for other shapes and for non-finite numbers."""
    columns = ", ".join(n[0] for n in names)
    try:
        points = np.asarray(table, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"Wanted a table of numbers ({columns}), found what is no such table ({error}).") from error
    if points.ndim != 2 or points.shape[1] not in (2, 3) or not len(points):
        raise DataError(
            f"Wanted points as rows of {columns} (the last may be missing), found an array of shape "
            f"{list(points.shape)}. Drop it, or write one row per point."
        )
    limits.total(points.size, f"{len(points)} points", "Cut it")
    invalid = np.flatnonzero(~np.isfinite(points).all(1))
    if len(invalid):
        raise DataError(
            f"Wanted finite numbers for {columns}, found NaN or infinity in {len(invalid)} of {len(points)} points, "
            f"first in point {invalid[0] + 1}. Drop these points."
        )
    if points.shape[1] == 2:
        points = np.column_stack([points, np.zeros(len(points))])
    return Points(np.ascontiguousarray(points), {str(k): float(v) for k, v in about.items()})


def write_points(value: Any, names: Sequence[Sequence[str]]) -> bytes:
    """Encode Points, an array [point, 2 or 3], lists, or columns by name as .npy, followed by `about` as JSON."""
    if not isinstance(value, Points):
        if isinstance(value, Mapping):
            columns, about = _split_scalars(value)
            value = check_points(_in_order(columns, names), about, names)
        else:
            single = getattr(value, "dtype", None) == np.float32
            value = check_points(value, {}, names)
            value = Points(value.table.astype(np.float32), value.about) if single else value
    buffer = io.BytesIO()
    np.save(buffer, value.table, allow_pickle=False)
    if value.about:
        buffer.write(json.dumps(dict(value.about)).encode())
    return buffer.getvalue()


def read_numbers(file: BinaryIO) -> dict[str, float]:
    """Read named numbers: a JSON object, a CSV with a header and one line, or a .npz of scalars. NaN means unknown."""
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
    """Convert a mapping to named numbers, with NaN for None (unknown). Raises DataError for anything else."""
    if not isinstance(value, Mapping) or not value:
        raise DataError(f"Wanted named numbers as {{name: number}}, found {type(value).__name__}: {value!r:.80}.")
    result = {}
    for name, number in value.items():
        try:
            result[str(name)] = np.nan if number is None else float(number)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"Wanted a number for {name!r}, found {number!r:.60}. Correct it, or remove the name."
            ) from error
    return result


Columns = Any
"""Columns by name, or one array [point, column]."""


def _content(blob: bytes) -> tuple[Columns, dict[str, float]]:
    """The columns, and the scalars (`about`)."""
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
        content = _json(blob)
        return _split_scalars(content) if isinstance(content, Mapping) else (content, {})
    return _csv(blob)


def _npz(blob: bytes) -> tuple[Columns, dict[str, float]]:
    try:
        with np.load(io.BytesIO(blob), allow_pickle=False) as archive:
            content = {name: archive[name] for name in archive.files}
    except zipfile.BadZipFile as error:
        raise DataError(f"Wanted a .npz file, found a damaged one ({error}). Copy it again.") from error
    columns, about = _split_scalars(content)
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
        raise DataError(f"Wanted JSON, found content that cannot be parsed ({error}). Correct the file.") from error


def _csv(blob: bytes) -> tuple[Columns, dict[str, float]]:
    """Parse CSV or white-space separated lines, with or without a header; lines that start with # are skipped."""
    try:
        text = blob.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"Wanted .npy, .npz, CSV, Parquet or JSON, found none of these ({error}).") from error
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    rows = list(csv.reader(lines)) if any("," in line for line in lines) else [line.split() for line in lines]
    if not rows:
        raise DataError("Wanted points, found a file without lines. Drop the row.")
    header = None if _numeric(rows[0][0]) else [name.strip() for name in rows.pop(0)]
    widths = {len(row) for row in rows} | ({len(header)} if header else set())
    if len(widths) > 1 or not rows:
        raise DataError(
            f"Wanted lines of equal length below the header, found lengths {sorted(widths)}. Correct the file."
        )
    try:
        table = np.array([[float(cell or "nan") for cell in row] for row in rows])
    except ValueError as error:
        raise DataError(f"Wanted numbers in the lines of the CSV file, found text ({error}).") from error
    return (table if header is None else dict(zip(header, table.T, strict=True))), {}


def _numeric(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _split_scalars(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """Separate columns from scalars; scalars may be nested in `about`."""
    about = dict(content["about"]) if isinstance(content.get("about"), Mapping) else {}
    rest = {k: v for k, v in content.items() if k != "about" or not about}
    scalars = {k: float(v) for k, v in rest.items() if np.ndim(v) == 0}
    return {k: v for k, v in rest.items() if k not in scalars}, {**scalars, **about}


def _in_order(columns: Columns, names: Sequence[Sequence[str]]) -> Any:
    """The columns in the order of `names`, matched by name if they have names."""
    if not isinstance(columns, Mapping):
        return columns
    lower = {str(name).lower(): value for name, value in columns.items()}
    matched = [next((lower[n] for n in accepted if n in lower), None) for accepted in names]
    if matched[0] is None or matched[1] is None:
        expected = "; ".join(" or ".join(n) for n in names)
        raise DataError(f"Wanted the columns {expected}; found {', '.join(map(str, columns)) or 'none'}. Rename them.")
    columns_in_order = [np.asarray(c) for c in matched if c is not None]
    if len({c.shape for c in columns_in_order}) > 1:
        raise DataError(f"Wanted columns of one length, found {[list(c.shape) for c in columns_in_order]}.")
    return np.column_stack(columns_in_order)
