"""Kinds of media that are numbers: a light curve, a spectrum, a record (a row of named numbers).

Opened plainly they are as measured; with `length`, `grid` or `names` they are what an encoder reads (`scaled.py`).
They are registered by importing this module, so that a column of that name means nothing to tasks that do not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from mmpost.data.media import limits
from mmpost.data.media.modalities import Modality, register
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
    """Points as measured; with `length`, the array [length, channel] of `scaled.light_curve`.

    `channels` names what is known of the whole curve and goes with each point, with `catalogue` as `scaled.record`
    makes it; `fold` asks for phases of its "period".
    """
    points = read_points(file, TIMES)
    if not length:
        return points
    missing = [name for name in (*channels, *(("period",) if fold else ())) if name not in points.about]
    if missing:
        raise DataError(
            f"Wanted {', '.join(missing)} beside the points of the light curve, found "
            f"{', '.join(points.about) or 'none'}. Add it to the file, or leave it out of the channels."
        )
    about = preprocess.record(points.about) if catalogue else points.about
    extra = [about[name] for name in channels]
    return preprocess.light_curve(points.table, extra, length, start, points.about["period"] if fold else None)


def open_spectrum(file: BinaryIO, grid: tuple[float, float, float] | None = None) -> Any:
    """Points as measured; with `grid` (first, end, step), the array [3, point] of `scaled.spectrum`."""
    points = read_points(file, WAVES)
    return points if grid is None else preprocess.spectrum(points.table, (grid[0], grid[1], grid[2]))


def open_record(file: BinaryIO, names: Sequence[str] = (), catalogue: bool = False) -> Any:
    """Numbers by name; with `names`, those as an array, NaN for unknown ones, with `catalogue` as `scaled.record`.

    Raises DataError where the record lacks one of the names.
    """
    found = read_numbers(file)
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"Wanted the numbers {', '.join(missing)} in the record, found {', '.join(found)}. Add them.")
    limits.total(len(found), f"{len(found)} numbers", "Drop some")
    made = preprocess.record(found) if catalogue and names else found
    return np.array([made[name] for name in names], np.float32) if names else made


def _span(file: BinaryIO, names: Sequence[Sequence[str]], count: str) -> dict[str, float]:
    table = read_points(file, names).table
    return {count: len(table), "from": float(table[:, 0].min()), "to": float(table[:, 0].max())}


def _flat(points: Points) -> Points:
    """The same places and errors, the same value everywhere."""
    table = points.table.copy()
    table[:, 1] = table[:, 1].mean()
    return Points(table, dict.fromkeys(points.about, np.nan))


def _folded(points: Points) -> float | None:
    period = points.about.get("period", 0.0)
    return period if period > 0 else None


def _curve_sketch(points: Points) -> str:
    """One period of it, where that is known."""
    x, period = points.table[:, 0], _folded(points)
    line = plots.sketch(plots.binned(np.mod(x, period) if period else x, points.table[:, 1], plots.COLUMNS))
    return f"{line}  {'one period' if period else 'in time'}"


def _write_record(value: Mapping[str, Any]) -> bytes:
    found = {k: None if np.isnan(v) else v for k, v in numbers(value).items()}
    return json.dumps(found, allow_nan=False).encode()


register(
    Modality(
        "light_curve",
        open_light_curve,
        lambda file: _span(file, TIMES, "epochs"),
        preview=lambda points: plots.light_curve(points.table, _folded(points)),
        encode=lambda value: write_points(value, TIMES),
        blank=_flat,
        sketch=_curve_sketch,
        preview_options={"length": 0},
    )
)
register(
    Modality(
        "spectrum",
        open_spectrum,
        lambda file: _span(file, WAVES, "points"),
        preview=lambda points: plots.spectrum(points.table),
        encode=lambda value: write_points(value, WAVES),
        blank=_flat,
        sketch=lambda points: plots.sketch(plots.binned(points.table[:, 0], points.table[:, 1], plots.COLUMNS)),
        preview_options={"grid": None},
    )
)
register(
    Modality(
        "record",
        open_record,
        lambda file: {"numbers": len(read_numbers(file))},
        preview=plots.numbers,
        encode=_write_record,
        size=lambda found: found.nbytes if isinstance(found, np.ndarray) else 64 * len(found),
        blank=lambda found: dict.fromkeys(found, np.nan),
        sketch=plots.row,
        preview_options={"names": ()},
    )
)
