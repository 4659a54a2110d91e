"""Tiling of large images: an overview, and tiles at full resolution."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from PIL import Image
from pydantic import Field

from mmpost.config.settings import Settings
from mmpost.data.media.media import Media, media
from mmpost.data.sources.base import Wrapped
from mmpost.types import Part, Sample, Source


class Tiles(Settings):
    """How images with a side longer than `side` are split; each tile gets the model's full pixel budget."""

    side: int = Field(default=512, ge=28)
    """Longest side of a tile, in pixels of the original image."""
    overview: int = Field(default=512, ge=0)
    """Longest side of the overview, which precedes the tiles; 0: no overview."""
    max_tiles: int = Field(default=9, ge=1)
    """Maximum number of tiles per image; an image that would need more gets larger tiles."""
    overlap: float = Field(default=0.0, ge=0, lt=1)
    """How far each tile extends into its neighbors, as a fraction of its sides."""

    def grid(self, width: float, height: float) -> tuple[int, int]:
        """Columns and rows of tiles; (1, 1) means that the image is not split."""
        side = float(self.side)
        while (columns := math.ceil(width / side)) * (rows := math.ceil(height / side)) > self.max_tiles:
            side *= 1.05
        return columns, rows

    def boxes(self, width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (left, top, right, bottom) of each tile, row by row; without overlap they cover each pixel once."""
        columns, rows = self.grid(width, height)
        for row in range(rows):
            for column in range(columns):
                left, right = self._interval(width, columns, column)
                top, bottom = self._interval(height, rows, row)
                yield left, top, right, bottom

    def _interval(self, length: int, count: int, index: int) -> tuple[int, int]:
        margin = self.overlap * length / count
        low, high = length * index / count - margin, length * (index + 1) / count + margin
        return max(0, round(low)), min(length, round(high))


class Tiled(Wrapped):
    """The samples of `source` with large images split; an image is decoded and cropped when its sample is built."""

    def __init__(self, source: Source, tiles: Tiles) -> None:
        super().__init__(source)
        self.tiles = tiles

    def sample(self, index: int) -> Sample:
        sample = self.source[index]
        return replace(sample, prompt=tuple(tile for part in sample.prompt for tile in self._split(part)))

    def _split(self, part: Part) -> Iterator[Part]:
        if part.modality != "image" or not isinstance(part.value, Media):
            yield part
            return
        size = part.value.header()
        if self.tiles.grid(size["width"], size["height"]) == (1, 1):
            yield part
            return
        image: Image.Image = part.value.open()
        if self.tiles.overview:
            overview = image.copy()
            overview.thumbnail((self.tiles.overview, self.tiles.overview), Image.Resampling.LANCZOS)
            yield replace(part, value=media(overview, "image", limits=part.value.limits))
        for box in self.tiles.boxes(*image.size):
            yield replace(part, value=media(image.crop(box), "image", limits=part.value.limits))
