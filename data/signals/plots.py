"""Plots of points: PNG for reports, a line of block characters for terminals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64
from PIL import Image, ImageDraw

from mmpost.data.media.preview import png

WIDTH, HEIGHT, EDGE = 480, 180, 34
BLUE, GRAY, BLACK = (40, 80, 160), (190, 196, 208), (60, 64, 72)
BLOCKS = "▁▂▃▄▅▆▇█"
COLUMNS = 60
"""Characters per line in the terminal."""

Points = Float64[np.ndarray, "point 3"]


def sketch(values: Float64[np.ndarray, " place"]) -> str:
    """Format values as block characters of eight heights, with spaces for NaN."""
    low, high = np.nanmin(values), np.nanmax(values)
    level = (values - low) / ((high - low) or 1.0) * (len(BLOCKS) - 1)
    return "".join(" " if np.isnan(v) else BLOCKS[round(float(v))] for v in level)


def binned(x: Float64[np.ndarray, " point"], y: Float64[np.ndarray, " point"], n: int) -> Float64[np.ndarray, " bin"]:
    """Mean of y in `n` equal bins of x; NaN for empty bins."""
    index = np.minimum(((x - x.min()) / ((x.max() - x.min()) or 1.0) * n).astype(int), n - 1)
    counts = np.bincount(index, minlength=n)
    return np.where(counts > 0, np.bincount(index, y, n) / np.maximum(counts, 1), np.nan)


def row(numbers: Mapping[str, float], n: int = 6) -> str:
    """Format the first `n` numbers with their names."""
    shown = " ".join(f"{name}={value:.4g}" for name, value in list(numbers.items())[:n])
    return shown + (f" and {len(numbers) - n} more" if len(numbers) > n else "")


def light_curve(table: Points, period: float | None) -> bytes:
    """A PNG of flux against time and, if the period is known, against phase over two periods."""
    rows = 2 if period else 1
    sheet = Image.new("RGB", (WIDTH, HEIGHT * rows), "white")
    _scatter(sheet, 0, table, "days" if table[:, 0].max() < 1e5 else "HJD")
    if period:
        phase = np.mod(table[:, 0], period) / period
        twice = np.concatenate([np.column_stack([phase + k, table[:, 1:]]) for k in (0, 1)])
        _scatter(sheet, HEIGHT, twice, f"phase, P = {period:.5g} d")
    return png(sheet)


def spectrum(table: Points) -> bytes:
    """A PNG of flux against wavelength."""
    sheet = Image.new("RGB", (WIDTH, HEIGHT), "white")
    _line(sheet, table[np.argsort(table[:, 0])], "Angstrom")
    return png(sheet)


def numbers(values: Mapping[str, float]) -> bytes:
    """A PNG of names and numbers in three columns."""
    columns, height = 3, 14
    lines = -(-len(values) // columns)
    sheet = Image.new("RGB", (WIDTH, height * lines + 6), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (name, value) in enumerate(values.items()):
        at = (4 + (i // lines) * WIDTH // columns, 2 + (i % lines) * height)
        draw.text(at, f"{name[:17]} {value:.4g}", fill=GRAY if np.isnan(value) else BLACK)
    return png(sheet)


class _Axes:
    """Draws axes with their limits, and maps values to pixels."""

    def __init__(self, draw: ImageDraw.ImageDraw, top: int, x: np.ndarray, low: float, high: float, unit: str) -> None:
        self._x, self._y = (float(x.min()), float(x.max())), (low, high)
        self._top = top
        box = (EDGE, top + 6, WIDTH - 8, top + HEIGHT - 18)
        draw.rectangle(box, outline=GRAY)
        draw.text((2, top + 4), f"{high:.3g}", fill=BLACK)
        draw.text((2, top + HEIGHT - 28), f"{low:.3g}", fill=BLACK)
        draw.text((EDGE, top + HEIGHT - 15), f"{self._x[0]:.6g}", fill=BLACK)
        draw.text((WIDTH - 60, top + HEIGHT - 15), f"{self._x[1]:.6g}", fill=BLACK)
        draw.text((WIDTH // 2 - 40, top + HEIGHT - 15), unit, fill=BLACK)

    def x(self, value: np.ndarray) -> np.ndarray:
        low, high = self._x
        return EDGE + 4 + (value - low) / ((high - low) or 1.0) * (WIDTH - EDGE - 16)

    def y(self, value: np.ndarray) -> np.ndarray:
        low, high = self._y
        inside = np.clip((value - low) / ((high - low) or 1.0), 0, 1)
        return self._top + HEIGHT - 22 - inside * (HEIGHT - 32)


def _scatter(sheet: Image.Image, top: int, table: Points, unit: str) -> None:
    x, y, error = table.T
    draw = ImageDraw.Draw(sheet)
    # Percentiles as limits: an outlier must not flatten the curve.
    low, high = np.percentile(y, [0.5, 99.5])
    margin = 0.08 * (high - low)
    axes = _Axes(draw, top, x, float(low - margin), float(high + margin), unit)
    at, below, above = axes.x(x), axes.y(y - error), axes.y(y + error)
    for px, a, b in zip(at, below, above, strict=True):
        draw.line([(px, a), (px, b)], fill=GRAY)
    for px, py in zip(at, axes.y(y), strict=True):
        draw.ellipse([px - 1.5, py - 1.5, px + 1.5, py + 1.5], fill=BLUE)


def _line(sheet: Image.Image, table: Points, unit: str) -> None:
    draw = ImageDraw.Draw(sheet)
    x, y = table[:, 0], table[:, 1]
    low, high = np.percentile(y, [0.2, 99.8])
    axes = _Axes(draw, 0, x, float(min(low, 0)), float(high * 1.05), unit)
    draw.line(list(zip(axes.x(x).tolist(), axes.y(y).tolist(), strict=True)), fill=BLUE)
