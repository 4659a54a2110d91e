"""What encoders of measured stars read, as pure functions: light curve [length, 10], spectrum [3, point], numbers.

Order and constants are those of AstroM3 (`src/dataset.py` of its repository). Where it divides by zero (a flat light
curve, a single epoch), the scale here is 1 and its logarithm 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Float64

from mmpost.errors import DataError

LENGTH = 200
GRID = (3850.0, 9000.0, 2.0)
"""First wavelength, end (not reached) and step, in Angstrom: 2575 points, the last 8998."""
ABSOLUTE = (
    *("mean_vmag", "phot_g_mean_mag", "phot_bp_mean_mag", "phot_rp_mean_mag"),
    *("j_mag", "h_mag", "k_mag", "w1_mag", "w2_mag", "w3_mag", "w4_mag"),
)
"""Magnitudes that a parallax makes absolute."""
META = (
    *("mean_vmag", "phot_g_mean_mag", "e_phot_g_mean_mag", "phot_bp_mean_mag", "e_phot_bp_mean_mag"),
    *("phot_rp_mean_mag", "e_phot_rp_mean_mag", "bp_rp", "parallax", "parallax_error", "parallax_over_error"),
    *("pmra", "pmra_error", "pmdec", "pmdec_error", "j_mag", "e_j_mag", "h_mag", "e_h_mag", "k_mag", "e_k_mag"),
    *("w1_mag", "e_w1_mag", "w2_mag", "e_w2_mag", "w3_mag", "w4_mag", "j_k", "w1_w2", "w3_w4", "pm", "ruwe", "l", "b"),
)
"""The 34 numbers of the record."""
PHOTO = ("amplitude", "period", "lksl_statistic", "rfr_score")
"""The 4 numbers about a light curve, which go with each of its points."""


def mad(values: Float64[np.ndarray, " point"]) -> float:
    """Median absolute deviation from the median, not scaled to a standard deviation; 1 where it is 0."""
    found = float(np.median(np.abs(values - np.median(values))))
    return found if found > 0 else 1.0


def light_curve(
    table: Float64[np.ndarray, "epoch 3"],
    extra: Sequence[float] = (),
    length: int = LENGTH,
    start: int | None = None,
    period: float | None = None,
) -> Float32[np.ndarray, "length channel"]:
    """Channels: time in [0, 1] (of the whole curve, before it is cut), flux, error, `extra`, log10(MAD), years, mask.

    `extra` and what follows stand at every step, also at those that only fill up; the mask, the last channel, is 1 at
    real ones. `start` is where the window begins, None in the middle. With `period`, time is the phase (t mod P) / P,
    and epochs are in its order. Raises DataError for a period that is not positive.
    """
    x = np.asarray(table, np.float64)
    x = x[np.lexsort(x.T[::-1])]  # by time, then flux, then error: equal rows are neighbours
    x = x[np.append(True, (x[1:] != x[:-1]).any(1))]
    flux = x[:, 1].copy()
    scale = mad(flux)
    x[:, 1] = (flux - flux.mean()) / scale
    x[:, 2] /= scale
    first, span = x[0, 0], x[-1, 0] - x[0, 0]
    years = span / 365
    if period is None:
        x[:, 0] = (x[:, 0] - first) / (span or 1.0)
    else:
        if not period > 0:
            raise DataError(
                f"Wanted a positive period to fold with, found {period}. Fold none (fold=false), or drop it."
            )
        x[:, 0] = np.mod(x[:, 0], period) / period
        x = x[np.argsort(x[:, 0], kind="stable")]
    room = max(0, len(x) - length)
    begin = room // 2 if start is None else min(start, room)
    x = x[begin : begin + length]
    made = np.zeros((length, 3 + len(extra) + 3), np.float32)
    made[: len(x), :3] = x
    made[:, 3:-1] = (*extra, np.log10(scale), years)
    made[: len(x), -1] = 1
    return made


def spectrum(
    table: Float64[np.ndarray, "point 3"], grid: tuple[float, float, float] = GRID
) -> Float32[np.ndarray, "3 point"]:
    """Flux, error and log10(MAD) on the wavelengths arange(*grid); beyond the observed ones the edge value is held.

    The mean is of all points of the grid, the MAD of those whose flux is not 0.
    """
    x = table[np.argsort(table[:, 0], kind="stable")]
    at = np.arange(*grid)
    flux, error = np.interp(at, x[:, 0], x[:, 1]), np.interp(at, x[:, 0], x[:, 2])
    seen = flux[flux != 0]
    scale = mad(seen) if len(seen) else 1.0
    return np.stack([(flux - flux.mean()) / scale, error / scale, np.full_like(flux, np.log10(scale))]).astype(
        np.float32
    )


def record(raw: Mapping[str, float]) -> dict[str, float]:
    """Magnitudes made absolute, m - 10 + 5 log10(parallax in mas); cos(l), sin(b) of degrees; log10(period).

    A parallax that is 0 or less counts as 1. Names that are not in `raw` are left out; the others are as they are.
    Raises DataError for a period that is not positive.
    """
    made = dict(raw)
    parallax = raw.get("parallax", np.nan)
    shift = -10 + 5 * np.log10(parallax if parallax > 0 else 1.0)
    made.update({name: raw[name] + shift for name in ABSOLUTE if name in raw})
    if "l" in raw:
        made["l"] = float(np.cos(np.radians(raw["l"])))
    if "b" in raw:
        made["b"] = float(np.sin(np.radians(raw["b"])))
    if "period" in raw:
        if not raw["period"] > 0:
            raise DataError(f"Wanted a positive period in days, found {raw['period']}. Correct or drop it.")
        made["period"] = float(np.log10(raw["period"]))
    return made


def water_fill(counts: Sequence[int], total: int) -> int:
    """The largest cap whose capped counts, min(count, cap), add up to no more than `total`."""
    if total >= sum(counts):
        return max(counts, default=0)
    low, high = 0, max(counts)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if sum(min(c, middle) for c in counts) <= total else (low, middle)
    return low


def capped(labels: Sequence[int], total: int, seed: int) -> list[int]:
    """Indices of at most `total` objects: of each class as many as `water_fill` allows, drawn with `seed`, in order."""
    found = np.asarray(labels)
    names, counts = np.unique(found, return_counts=True)
    cap = water_fill(counts.tolist(), total)
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(found == name))[:cap] for name in names]
    return sorted(np.concatenate(chosen).tolist()) if chosen else []
