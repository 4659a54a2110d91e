"""Preprocessing of measured stars for encoders: light curve [length, 10], spectrum [3, point], record of numbers.

The order of the channels and all constants are those of AstroM3 (`src/dataset.py` in its repository). Where AstroM3
would divide by zero (a flat light curve, a single epoch), the scale here is 1 and its logarithm 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Float64

from mmpost.errors import DataError

LENGTH = 200
GRID = (3850.0, 9000.0, 2.0)
"""First wavelength, end (exclusive) and step in Angstrom: 2575 points, the last at 8998."""
ABSOLUTE = (
    *("mean_vmag", "phot_g_mean_mag", "phot_bp_mean_mag", "phot_rp_mean_mag"),
    *("j_mag", "h_mag", "k_mag", "w1_mag", "w2_mag", "w3_mag", "w4_mag"),
)
"""Magnitudes that are converted to absolute ones by the parallax."""
META = (
    *("mean_vmag", "phot_g_mean_mag", "e_phot_g_mean_mag", "phot_bp_mean_mag", "e_phot_bp_mean_mag"),
    *("phot_rp_mean_mag", "e_phot_rp_mean_mag", "bp_rp", "parallax", "parallax_error", "parallax_over_error"),
    *("pmra", "pmra_error", "pmdec", "pmdec_error", "j_mag", "e_j_mag", "h_mag", "e_h_mag", "k_mag", "e_k_mag"),
    *("w1_mag", "e_w1_mag", "w2_mag", "e_w2_mag", "w3_mag", "w4_mag", "j_k", "w1_w2", "w3_w4", "pm", "ruwe", "l", "b"),
)
"""The 34 numbers of the record."""
PHOTO = ("amplitude", "period", "lksl_statistic", "rfr_score")
"""The 4 numbers about a light curve that become channels of each of its points."""


def mad(values: Float64[np.ndarray, " point"]) -> float:
    """Median absolute deviation, not scaled to a standard deviation; 1 instead of 0."""
    deviation = float(np.median(np.abs(values - np.median(values))))
    return deviation if deviation > 0 else 1.0


def light_curve(
    table: Float64[np.ndarray, "epoch 3"],
    extra: Sequence[float] = (),
    length: int = LENGTH,
    start: int | None = None,
    period: float | None = None,
) -> Float32[np.ndarray, "length channel"]:
    """Channels: time in [0, 1] (of the curve before cropping), flux, error, `extra`, log10(MAD), years, mask.

    `extra` and the channels after it are constant, also over the padding; the mask (last channel) is 1 at observations.
    Curves longer than `length` are cropped from index `start`, by default around the center. With `period`, times
    become phases (t mod P) / P, and epochs are sorted by them. Raises DataError for a period that is not positive.
    """
    x = np.asarray(table, np.float64)
    x = x[np.lexsort(x.T[::-1])]  # by time, flux and error, so that duplicate rows are adjacent
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
            raise DataError(f"Wanted a positive period to fold with, found {period}. Set fold=false, or drop the row.")
        x[:, 0] = np.mod(x[:, 0], period) / period
        x = x[np.argsort(x[:, 0], kind="stable")]
    excess = max(0, len(x) - length)
    begin = excess // 2 if start is None else min(start, excess)
    x = x[begin : begin + length]
    channels = np.zeros((length, 3 + len(extra) + 3), np.float32)
    channels[: len(x), :3] = x
    channels[:, 3:-1] = (*extra, np.log10(scale), years)
    channels[: len(x), -1] = 1
    return channels


def spectrum(
    table: Float64[np.ndarray, "point 3"], grid: tuple[float, float, float] = GRID
) -> Float32[np.ndarray, "3 point"]:
    """Interpolate flux, error and log10(MAD) at the wavelengths arange(*grid); beyond the data the edge values hold.

    The flux is centered by the mean over the grid and scaled by the MAD of its nonzero values.
    """
    x = table[np.argsort(table[:, 0], kind="stable")]
    wavelengths = np.arange(*grid)
    flux, error = np.interp(wavelengths, x[:, 0], x[:, 1]), np.interp(wavelengths, x[:, 0], x[:, 2])
    nonzero = flux[flux != 0]
    scale = mad(nonzero) if len(nonzero) else 1.0
    return np.stack([(flux - flux.mean()) / scale, error / scale, np.full_like(flux, np.log10(scale))]).astype(
        np.float32
    )


def record(raw: Mapping[str, float]) -> dict[str, float]:
    """Convert magnitudes to absolute ones, m - 10 + 5 log10(parallax in mas); cos(l), sin(b) of degrees; log10(period).

    A parallax of 0 or less counts as 1. Missing names are skipped, and other names are unchanged. Raises DataError for
    a period that is not positive.
    """
    values = dict(raw)
    parallax = raw.get("parallax", np.nan)
    shift = -10 + 5 * np.log10(parallax if parallax > 0 else 1.0)
    values.update({name: raw[name] + shift for name in ABSOLUTE if name in raw})
    if "l" in raw:
        values["l"] = float(np.cos(np.radians(raw["l"])))
    if "b" in raw:
        values["b"] = float(np.sin(np.radians(raw["b"])))
    if "period" in raw:
        if not raw["period"] > 0:
            raise DataError(f"Wanted a positive period in days, found {raw['period']}. Correct or drop it.")
        values["period"] = float(np.log10(raw["period"]))
    return values


def water_fill(counts: Sequence[int], total: int) -> int:
    """The largest cap for which sum(min(count, cap)) does not exceed `total`."""
    if total >= sum(counts):
        return max(counts, default=0)
    low, high = 0, max(counts)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if sum(min(c, middle) for c in counts) <= total else (low, middle)
    return low


def class_balanced_subset(labels: Sequence[int], total: int, seed: int) -> list[int]:
    """Indices of at most `total` objects, in order; each class is sampled with `seed` up to the cap of `water_fill`."""
    classes = np.asarray(labels)
    names, counts = np.unique(classes, return_counts=True)
    cap = water_fill(counts.tolist(), total)
    rng = np.random.default_rng(seed)
    subsets = [rng.permutation(np.flatnonzero(classes == name))[:cap] for name in names]
    return sorted(np.concatenate(subsets).tolist()) if subsets else []
