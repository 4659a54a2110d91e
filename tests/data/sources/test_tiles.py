"""Tiling of large images: full coverage, pixel budgets, and small images unchanged."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mmpost.config.settings import ModelSettings
from mmpost.data.media.media import media
from mmpost.data.sources.tiles import Tiled, Tiles
from mmpost.data.worlds.aerial.questions import Aerial
from mmpost.models.chat.prompt_lengths import PromptLengths
from mmpost.types import Part, Sample


def sample(width: int, height: int) -> Sample:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Sample("s", (Part("image", media(Image.fromarray(pixels), "image")), Part("text", "what is it?")))


@pytest.mark.parametrize(
    ("width", "height", "max_tiles", "grid"),
    [
        (512, 512, 9, (1, 1)),
        (513, 512, 9, (2, 1)),
        (1024, 1024, 9, (2, 2)),
        (4000, 100, 9, (8, 1)),
        (4096, 4096, 4, (2, 2)),
    ],
)
def test_the_grid(width: int, height: int, max_tiles: int, grid: tuple[int, int]) -> None:
    assert Tiles(max_tiles=max_tiles).grid(width, height) == grid


def test_tiles_cover_each_pixel_once() -> None:
    image_sample = sample(700, 300)
    parts = Tiled([image_sample], Tiles(side=256, overview=128))[0].prompt
    assert [p.modality for p in parts] == ["image"] * 7 + ["text"]
    overview, *tiles = [p.value.open() for p in parts[:-1]]
    assert overview.size == (128, 55)
    rows = [np.concatenate([np.asarray(t) for t in tiles[3 * r : 3 * r + 3]], axis=1) for r in range(2)]
    assert np.array_equal(np.concatenate(rows), np.asarray(image_sample.prompt[0].value.open()))
    assert {t.size for t in tiles} == {(233, 150), (234, 150)}


def test_overlap_and_no_overview() -> None:
    boxes = list(Tiles(side=100, overlap=0.1).boxes(200, 100))
    assert boxes == [(0, 0, 110, 100), (90, 0, 200, 100)]
    assert len(Tiled([sample(200, 100)], Tiles(side=100, overview=0))[0].prompt) == 3


def test_small_images_are_unchanged() -> None:
    image_sample = sample(100, 100)
    assert Tiled([image_sample], Tiles())[0] == image_sample


def test_the_token_budget_of_large_images(tiny_folder: str) -> None:
    """1024 x 1024 is 1369 tokens of 28 x 28 pixels; a budget applies to the image, or to each of its tiles."""
    large = Aerial(n=1, size=1024)[0]
    tiled = Tiled([large], Tiles(side=512, overview=512))[0]

    def tokens(image_sample: Sample, max_pixels: int | None) -> int:
        return PromptLengths(tiny_folder, ModelSettings(max_pixels=max_pixels)).exact(image_sample).media

    assert abs(tokens(large, None) - 1369) < 20
    assert abs(tokens(large, 256 * 28 * 28) - 256) < 20
    assert abs(tokens(tiled, 256 * 28 * 28) - 5 * 256) < 100
    assert abs(tokens(tiled, 64 * 28 * 28) - 5 * 64) < 40
