"""Test prompts of all shapes: several image sizes, several images, none, and different lengths."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from mmpost.data.media.media import Media, media
from mmpost.types import Part, Sample

ODD_SIZE = (93, 61)
"""An image size that every family resizes."""


def random_image(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.NEAREST)


def random_video(width: int, height: int, seed: int = 0, frames: int = 4, fps: float = 2.0) -> Media:
    images = [np.asarray(random_image(width, height, 100 * seed + i)) for i in range(frames)]
    return media({"frames": images, "fps": fps}, "video")


def random_audio(seconds: float, seed: int = 0) -> Media:
    wave = np.random.default_rng(seed).normal(0, 0.2, round(seconds * 16000)).astype(np.float32)
    return media((wave * np.sin(np.arange(len(wave)) * (seed + 1) / 50), 16000), "audio")


def random_medium(modality: str, width: int, height: int, seed: int = 0) -> Part:
    """A random medium; for videos and audio, a larger `width` also means a longer duration."""
    if modality == "video":
        return Part(modality, random_video(width, height, seed, 4 + 2 * (width // 40), 2 / (1 + seed)))
    return Part(modality, random_audio(width / 100, seed) if modality == "audio" else random_image(width, height, seed))


def mixed_prompts(modality: str = "image") -> list[Sample]:
    return [
        Sample("square", (random_medium(modality, 56, 56), Part("text", "what is in the image"))),
        Sample("text", (Part("text", "count from one to three, please, and then stop at the last number"),)),
        Sample(
            "two",
            (
                Part("text", "which is larger"),
                random_medium(modality, *ODD_SIZE, seed=1),
                random_medium(modality, 30, 80, seed=2),
                Part("text", "the first or the second, and what colour is the one that is not"),
            ),
        ),
        Sample("odd", (random_medium(modality, *ODD_SIZE, seed=3), Part("text", "left or right"))),
        Sample(
            "turns",
            (
                Part("text", "be short", "system"),
                random_medium(modality, 100, 40, seed=4),
                Part("text", "how many digits"),
                Part("text", "three", "assistant"),
                Part("text", "and now"),
            ),
        ),
    ]


def scenes(n: int) -> Iterator[Sample]:
    for i in range(n):
        yield Sample(f"s{i}", (Part("image", random_image(40 + 9 * i, 70 - 5 * i, i)), Part("text", f"number {i}")))
