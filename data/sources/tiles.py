"""Large pictures as several: an overview, and tiles at full resolution."""

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
    """How a picture with a side longer than `side` is split; each of its pieces has the model's own pixel budget."""

    side: int = Field(default=512, ge=28)
    """Longest side of a tile, in pixels of the picture."""
    overview: int = Field(default=512, ge=0)
    """Longest side of the overview, which comes first; 0: no overview."""
    most: int = Field(default=9, ge=1)
    """Most tiles of a picture; where more would be needed, tiles get larger."""
    overlap: float = Field(default=0.0, ge=0, lt=1)
    """How far a tile reaches into its neighbours, as a share of its sides."""

    def grid(self, width: float, height: float) -> tuple[int, int]:
        """Columns and rows of tiles; (1, 1): the picture stays whole."""
        side = float(self.side)
        while (columns := math.ceil(width / side)) * (rows := math.ceil(height / side)) > self.most:
            side *= 1.05
        return columns, rows

    def boxes(self, width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
        """Left, top, right, bottom of each tile, row by row; without overlap they cover each pixel once."""
        columns, rows = self.grid(width, height)
        for row in range(rows):
            for column in range(columns):
                left, right = self._reach(width, columns, column)
                top, bottom = self._reach(height, rows, row)
                yield left, top, right, bottom

    def _reach(self, length: int, pieces: int, place: int) -> tuple[int, int]:
        more = self.overlap * length / pieces
        low, high = length * place / pieces - more, length * (place + 1) / pieces + more
        return max(0, round(low)), min(length, round(high))


class Tiled(Wrapped):
    """The samples of `source` with large pictures split; a picture is decoded and cut when its sample is made."""

    def __init__(self, source: Source, tiles: Tiles) -> None:
        super().__init__(source)
        self.tiles = tiles

    def sample(self, index: int) -> Sample:
        sample = self.source[index]
        return replace(sample, prompt=tuple(piece for part in sample.prompt for piece in self._pieces(part)))

    def _pieces(self, part: Part) -> Iterator[Part]:
        if part.modality != "image" or not isinstance(part.value, Media):
            yield part
            return
        size = part.value.header()
        if self.tiles.grid(size["width"], size["height"]) == (1, 1):
            yield part
            return
        picture: Image.Image = part.value.open()
        if self.tiles.overview:
            overview = picture.copy()
            overview.thumbnail((self.tiles.overview, self.tiles.overview), Image.Resampling.LANCZOS)
            yield replace(part, value=media(overview, "image", limits=part.value.limits))
        for box in self.tiles.boxes(*picture.size):
            yield replace(part, value=media(picture.crop(box), "image", limits=part.value.limits))
