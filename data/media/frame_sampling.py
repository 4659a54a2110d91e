"""Frame sampling: which frames of a video a model sees, and the pixel budget of each; arithmetic without decoding."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

SLACK = 1e-6
"""Tolerance for rounding errors when frames are counted."""


def sample_frames(
    header: Mapping[str, float],
    fps: float | None = None,
    max_frames: int | None = None,
    min_frames: int | None = None,
    factor: int = 1,
) -> list[int]:
    """Indices of the frames that `Media.open` returns with these options: evenly spaced, first and last included.

    Their number is duration times `fps` (without fps all frames), clamped to `min_frames` and `max_frames` and to the
    length of the file, then rounded down to a multiple of `factor`; the two bounds are rounded to multiples, too. With
    fps=2, min_frames=4, max_frames=768 and factor=2 this is the rule of qwen-vl-utils, except that files with fewer
    than `factor` frames, which qwen-vl-utils rejects, give all their frames.
    """
    total = int(header["frames"])
    target = float(total) if fps is None else total / header["fps"] * fps
    low = math.ceil((min_frames or 1) / factor) * factor
    high = total if max_frames is None else max(1, max_frames // factor * factor)
    target = min(max(target, low), high, total)
    count = math.floor((target + SLACK) / factor) * factor
    return np.linspace(0, total - 1, count or min(total, factor)).round().astype(int).tolist()


def frame_pixels(
    frames: int,
    total_pixels: float,
    min_pixels: int,
    max_pixels: int = 768 * 28 * 28,
    factor: int = 2,
) -> float:
    """Maximum pixels per frame when `frames` frames share a budget of `total_pixels`, as in qwen-vl-utils
    (Temporal-R1).

    `factor` frames are merged into one grid of patches, so each may have `factor` times its part of the budget. The
    result is never less than 1.05 times `min_pixels`, so that long clips exceed the budget.
    """
    return max(min(max_pixels, total_pixels / frames * factor), int(min_pixels * 1.05))
