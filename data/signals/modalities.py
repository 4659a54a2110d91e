"""Modalities made of numbers: light curves, spectra, and records (rows of named numbers).

By default they open as measured; with `length`, `grid` or `names` they become the input of an encoder
(`preprocess.py`). Importing this module registers them, so that tasks without them may use columns of these names for
other purposes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from mmpost.data.media import limits
from mmpost.data.media.modalities import Modality, register_modality
from mmpost.data.signals import plots, preprocess
from mmpost.data.signals.points import Points, numbers, read_numbers, read_points, write_points
from mmpost.errors import DataError

TIMES = (("time", "hjd", "bjd", "mjd", "jd", "t"), ("flux", "mag", "value"), ("error", "flux_err", "flux_error", "err"))
WAVES = (("wavelength", "wave", "lambda"), ("flux", "value"), ("error", "flux_err", "flux_error", "ivar", "err"))


def open_light_curve(
    file: BinaryIO,
    length: int = 0,
    channels: Sequence[str] = (),
    catalogue: bool = False,
    fold: bool = False,
    start: int | None = None,
) -> Any:
    """Read points as measured; with `length`, the array [length, channel] of `preprocess.light_curve`.

    `channels` names numbers about the whole curve that become channels of every point, preprocessed by
    `preprocess.record` if `catalogue`; `fold` replaces times by phases of its "period". Raises DataError if the file
    lacks one of these numbers.
    """
    points = read_points(file, TIMES)
    if not length:
        return points
    missing = [name for name in (*channels, *(("period",) if fold else ())) if name not in points.about]
    if missing:
        raise DataError(
            f"Wanted {', '.join(missing)} beside the points of the light curve, found "
            f"{', '.join(points.about) or 'none'}. Add it to the file, or remove it from the channels."
        )
    about = preprocess.record(points.about) if catalogue else points.about
    extra = [about[name] for name in channels]
    return preprocess.light_curve(points.table, extra, length, start, points.about["period"] if fold else None)


def open_spectrum(file: BinaryIO, grid: tuple[float, float, float] | None = None) -> Any:
    """Read points as measured; with `grid` (first, end, step), the array [3, point] of `preprocess.spectrum`."""
    points = read_points(file, WAVES)
    return points if grid is None else preprocess.spectrum(points.table, (grid[0], grid[1], grid[2]))


def open_record(file: BinaryIO, names: Sequence[str] = (), catalogue: bool = False) -> Any:
    """Read numbers by name; with `names`, an array of these, NaN where unknown.

    `catalogue` applies `preprocess.record`.
    Raises DataError if the record lacks one of the names.
    """
    record = read_numbers(file)
    missing = [name for name in names if name not in record]
    if missing:
        raise DataError(f"Wanted the numbers {', '.join(missing)} in the record, found {', '.join(record)}. Add them.")
    limits.total(len(record), f"{len(record)} numbers", "Drop some")
    values = preprocess.record(record) if catalogue and names else record
    return np.array([values[name] for name in names], np.float32) if names else values


def _span(file: BinaryIO, names: Sequence[Sequence[str]], count: str) -> dict[str, float]:
    table = read_points(file, names).table
    return {count: len(table), "from": float(table[:, 0].min()), "to": float(table[:, 0].max())}


def _blank_points(points: Points) -> Points:
    """The blank of points: the mean value everywhere, with the same x and errors."""
    table = points.table.copy()
    table[:, 1] = table[:, 1].mean()
    return Points(table, dict.fromkeys(points.about, np.nan))


def _period(points: Points) -> float | None:
    period = points.about.get("period", 0.0)
    return period if period > 0 else None


def _curve_sketch(points: Points) -> str:
    """A sketch of one period, if the period is known."""
    x, period = points.table[:, 0], _period(points)
    line = plots.sketch(plots.binned(np.mod(x, period) if period else x, points.table[:, 1], plots.COLUMNS))
    return f"{line}  {'one period' if period else 'in time'}"


def _write_record(value: Mapping[str, Any]) -> bytes:
    record = {k: None if np.isnan(v) else v for k, v in numbers(value).items()}
    return json.dumps(record, allow_nan=False).encode()


register_modality(
    Modality(
        "light_curve",
        open_light_curve,
        lambda file: _span(file, TIMES, "epochs"),
        preview=lambda points: plots.light_curve(points.table, _period(points)),
        encode=lambda value: write_points(value, TIMES),
        blank=_blank_points,
        sketch=_curve_sketch,
        preview_options={"length": 0},
    )
)
register_modality(
    Modality(
        "spectrum",
        open_spectrum,
        lambda file: _span(file, WAVES, "points"),
        preview=lambda points: plots.spectrum(points.table),
        encode=lambda value: write_points(value, WAVES),
        blank=_blank_points,
        sketch=lambda points: plots.sketch(plots.binned(points.table[:, 0], points.table[:, 1], plots.COLUMNS)),
        preview_options={"grid": None},
    )
)
register_modality(
    Modality(
        "record",
        open_record,
        lambda file: {"numbers": len(read_numbers(file))},
        preview=plots.numbers,
        encode=_write_record,
        size=lambda value: value.nbytes if isinstance(value, np.ndarray) else 64 * len(value),
        blank=lambda record: dict.fromkeys(record, np.nan),
        sketch=plots.row,
        preview_options={"names": ()},
    )
)
