"""Prompts of every shape in one batch: several sizes, several images, none, and different lengths."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from mmpost.data.media.media import Media, media
from mmpost.types import Part, Sample

ODD = (93, 61)
"""A size that no family keeps."""


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.NEAREST)


def film(width: int, height: int, seed: int = 0, frames: int = 4, fps: float = 2.0) -> Media:
    pictures = [np.asarray(picture(width, height, 100 * seed + i)) for i in range(frames)]
    return media({"frames": pictures, "fps": fps}, "video")


def sound(seconds: float, seed: int = 0) -> Media:
    wave = np.random.default_rng(seed).normal(0, 0.2, round(seconds * 16000)).astype(np.float32)
    return media((wave * np.sin(np.arange(len(wave)) * (seed + 1) / 50), 16000), "audio")


def medium(kind: str, width: int, height: int, seed: int = 0) -> Part:
    """Of a size that follows from these, whatever the kind: wider is also longer."""
    if kind == "video":
        return Part(kind, film(width, height, seed, 4 + 2 * (width // 40), 2 / (1 + seed)))
    return Part(kind, sound(width / 100, seed) if kind == "audio" else picture(width, height, seed))


def mixed(kind: str = "image") -> list[Sample]:
    return [
        Sample("square", (medium(kind, 56, 56), Part("text", "what is in the image"))),
        Sample("text", (Part("text", "count from one to three, please, and then stop at the last number"),)),
        Sample(
            "two",
            (
                Part("text", "which is larger"),
                medium(kind, *ODD, seed=1),
                medium(kind, 30, 80, seed=2),
                Part("text", "the first or the second, and what colour is the one that is not"),
            ),
        ),
        Sample("odd", (medium(kind, *ODD, seed=3), Part("text", "left or right"))),
        Sample(
            "turns",
            (
                Part("text", "be short", "system"),
                medium(kind, 100, 40, seed=4),
                Part("text", "how many digits"),
                Part("text", "three", "assistant"),
                Part("text", "and now"),
            ),
        ),
    ]


def scenes(n: int) -> Iterator[Sample]:
    for i in range(n):
        yield Sample(f"s{i}", (Part("image", picture(40 + 9 * i, 70 - 5 * i, i)), Part("text", f"number {i}")))
