"""Which frames of a video a model looks at, and how many pixels each may have: rules of sizes, without a decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

SLACK = 1e-6
"""Frames and a fraction that rounding took are whole frames."""


def sample_frames(
    header: Mapping[str, float],
    fps: float | None = None,
    max_frames: int | None = None,
    min_frames: int | None = None,
    factor: int = 1,
) -> list[int]:
    """Which frames `open` returns with these options: evenly spaced, the first and the last among them.

    As many as `fps` asks for over the file's length (all without it), at least `min_frames`, at most `max_frames` and
    those there are, then down to a multiple of `factor`; the two bounds are multiples too. With fps=2, min_frames=4,
    max_frames=768 and factor=2 this is the rule of qwen-vl-utils, which refuses a file of fewer than `factor` frames:
    here all of them are returned.
    """
    total = int(header["frames"])
    wanted = float(total) if fps is None else total / header["fps"] * fps
    low = math.ceil((min_frames or 1) / factor) * factor
    high = total if max_frames is None else max(1, max_frames // factor * factor)
    wanted = min(max(wanted, low), high, total)
    count = math.floor((wanted + SLACK) / factor) * factor
    return np.linspace(0, total - 1, count or min(total, factor)).round().astype(int).tolist()


def frame_pixels(
    frames: int,
    total_pixels: float,
    min_pixels: int,
    max_pixels: int = 768 * 28 * 28,
    factor: int = 2,
) -> float:
    """Most pixels of one frame, where `frames` frames share `total_pixels` (Temporal-R1; the rule of qwen-vl-utils).

    `factor` frames become one grid of patches, so that a frame may have that many times its share; never less than 5%
    above `min_pixels`, which lets a long clip exceed the total.
    """
    return max(min(max_pixels, total_pixels / frames * factor), int(min_pixels * 1.05))
