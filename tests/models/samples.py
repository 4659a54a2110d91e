"""Prompts of every shape in one batch: several sizes, several images, none, and different lengths."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from mmpost.types import Part, Sample

ODD = (93, 61)
"""A size that no family keeps."""


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.NEAREST)


def mixed() -> list[Sample]:
    return [
        Sample("square", (Part("image", picture(56, 56)), Part("text", "what is in the image"))),
        Sample("text", (Part("text", "count from one to three, please, and then stop at the last number"),)),
        Sample(
            "two",
            (
                Part("text", "which is larger"),
                Part("image", picture(*ODD, seed=1)),
                Part("image", picture(30, 80, seed=2)),
                Part("text", "the first or the second, and what colour is the one that is not"),
            ),
        ),
        Sample("odd", (Part("image", picture(*ODD, seed=3)), Part("text", "left or right"))),
        Sample(
            "turns",
            (
                Part("text", "be short", "system"),
                Part("image", picture(100, 40, seed=4)),
                Part("text", "how many digits"),
                Part("text", "three", "assistant"),
                Part("text", "and now"),
            ),
        ),
    ]


def scenes(n: int) -> Iterator[Sample]:
    for i in range(n):
        yield Sample(f"s{i}", (Part("image", picture(40 + 9 * i, 70 - 5 * i, i)), Part("text", f"number {i}")))
