"""Thumbnails and plots of decoded media, for reports and terminals."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SIDE = 256
"""Longest side of a preview, in pixels."""
LARGE_SIDE, LARGE_BYTES = 640, 64_000
"""Longest side of a preview that is at most so many bytes: that of a print or drawing, whose text can then be read."""


def png(image: Image.Image, level: int = 6) -> bytes:
    """Encode an image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=level)
    return buffer.getvalue()


def thumbnail(image: Image.Image) -> bytes:
    """A PNG of the image, reduced to at most `LARGE_SIDE` pixels per side if it is small, else to `SIDE`."""
    if max(image.size) > SIDE:
        large = image.copy()
        large.thumbnail((LARGE_SIDE, LARGE_SIDE))
        content = png(large)
        if len(content) <= LARGE_BYTES:
            return content
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    return png(small)


def strip(frames: Sequence[np.ndarray]) -> bytes:
    """A PNG of up to four frames [height, width, 3] side by side."""
    shown = [Image.fromarray(frames[i]) for i in np.unique(np.linspace(0, len(frames) - 1, 4).round().astype(int))]
    for image in shown:
        image.thumbnail((SIDE // 2, SIDE))
    sheet = Image.new("RGB", (sum(i.width for i in shown), max(i.height for i in shown)), "white")
    left = 0
    for image in shown:
        sheet.paste(image, (left, 0))
        left += image.width
    return png(sheet)


def curve(values: np.ndarray) -> bytes:
    """A PNG plot of a signal [samples] as the range (minimum to maximum) in each column of pixels."""
    columns = np.array_split(np.nan_to_num(np.asarray(values, np.float64)), min(SIDE, max(1, len(values))))
    low, high = np.array([c.min(initial=0) for c in columns]), np.array([c.max(initial=0) for c in columns])
    height = SIDE // 4
    top = max(abs(low).max(), abs(high).max()) or 1.0
    sheet = Image.new("RGB", (len(columns), height), "white")
    draw = ImageDraw.Draw(sheet)
    middle = (height - 1) / 2
    for x, (a, b) in enumerate(zip(low, high, strict=True)):
        draw.line([(x, middle - middle * b / top), (x, middle - middle * a / top)], fill=(40, 80, 160))
    return png(sheet)


def array(value: Any) -> bytes:
    """A PNG of an array: a curve for one axis, gray levels for two, an image for uint8 RGB, else its shape."""
    numbers = np.asarray(value)
    if numbers.dtype.kind in "biuf" and numbers.size:
        if numbers.ndim == 1:
            return curve(numbers)
        if numbers.ndim == 3 and numbers.shape[2] == 3 and numbers.dtype == np.uint8:
            return thumbnail(Image.fromarray(numbers))
        if numbers.ndim == 2:
            gray = np.nan_to_num(numbers.astype(np.float64))
            gray = (gray - gray.min()) / ((gray.max() - gray.min()) or 1.0)
            return thumbnail(Image.fromarray((gray * 255).astype(np.uint8)))
    card = Image.new("RGB", (SIDE, 24), "white")
    ImageDraw.Draw(card).text((4, 6), f"{type(value).__name__} {numbers.shape}", fill="black")
    return png(card)
