"""Renders objects seen from above with PIL, at any image size: the scenes of `mmpost.data.worlds.aerial.questions`."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

COLORS = ("red", "blue", "white", "yellow", "orange")

RGB: dict[str, tuple[int, int, int]] = {
    "red": (205, 40, 40), "blue": (60, 90, 230), "white": (235, 235, 235), "yellow": (235, 215, 60),
    "orange": (235, 135, 40), "pond": (40, 110, 170), "sea": (25, 75, 130), "field": (170, 140, 70),
    "furrow": (140, 112, 52), "leaf": (40, 130, 50), "light": (80, 170, 80), "grass": (14, 20, 10),
    "asphalt": (75, 75, 80), "concrete": (150, 150, 155), "shadow": (0, 0, 0), "line": (240, 240, 240),
    "clay": (190, 95, 55), "pitch": (50, 150, 60), "court": (40, 120, 110), "floor": (205, 120, 60),
}  # fmt: skip

EXTENT = {"small": 0.17, "medium": 0.28, "large": 0.42, "": 0.3}
"""Half the width of an object by its size, as a fraction of its cell; "" is the default of objects without a size."""


class Drawable(Protocol):
    """The attributes of a scene object that rendering reads."""

    @property
    def kind(self) -> str: ...
    @property
    def row(self) -> int: ...
    @property
    def column(self) -> int: ...
    @property
    def color(self) -> str: ...
    @property
    def shape(self) -> str: ...
    @property
    def size(self) -> str: ...


class Pen:
    """Draws in units of one cell, with the origin at the center of the object and y pointing down."""

    def __init__(self, draw: ImageDraw.ImageDraw, centre: tuple[float, float], cell: float) -> None:
        self.draw, self.centre, self.cell = draw, centre, cell

    def _at(self, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(self.centre[0] + x * self.cell, self.centre[1] + y * self.cell) for x, y in points]

    def polygon(self, color: str, *points: tuple[float, float]) -> None:
        self.draw.polygon(self._at(points), fill=RGB[color])

    def box(self, color: str, x: float, y: float, width: float, height: float) -> None:
        """Fill a rectangle centered at (x, y)."""
        low, high = self._at([(x - width / 2, y - height / 2), (x + width / 2, y + height / 2)])
        self.draw.rectangle([low, high], fill=RGB[color])

    def disc(self, color: str, x: float, y: float, radius: float, flat: float = 1.0) -> None:
        """Fill an ellipse centered at (x, y) with horizontal radius `radius` and vertical radius `radius * flat`."""
        low, high = self._at([(x - radius, y - radius * flat), (x + radius, y + radius * flat)])
        self.draw.ellipse([low, high], fill=RGB[color])

    def frame(self, color: str, x: float, y: float, width: float, height: float, line: float = 0.035) -> None:
        """Outline a rectangle centered at (x, y)."""
        low, high = self._at([(x - width / 2, y - height / 2), (x + width / 2, y + height / 2)])
        self.draw.rectangle([low, high], outline=RGB[color], width=max(1, round(line * self.cell)))

    def ring(self, color: str, radius: float, line: float = 0.035, flat: float = 1.0) -> None:
        """Outline an ellipse centered on the object."""
        low, high = self._at([(-radius, -radius * flat), (radius, radius * flat)])
        self.draw.ellipse([low, high], outline=RGB[color], width=max(1, round(line * self.cell)))


def render(things: Sequence[Drawable], cells: int, size: int, rng: random.Random) -> Image.Image:
    """Render the scene as an RGB image of `size` x `size` pixels.

    `rng` decides the offset of each object within its cell, and the texture of the ground. Objects are drawn in the
    order given, after those of `_DRAWN_FIRST`; changing this order would change the random numbers of each object.
    """
    # Small images are rendered at twice the size and downsampled, which anti-aliases their edges.
    supersampling = 2 if size < 512 else 1
    canvas = Image.new("RGB", (size * supersampling, size * supersampling), RGB["grass"])
    draw, cell = ImageDraw.Draw(canvas), size * supersampling / cells
    layer = {kind: number for number, kind in enumerate(_DRAWN_FIRST)}
    for thing in sorted(things, key=lambda t: layer.get(t.kind, len(layer))):
        if thing.kind == "road":
            _road(draw, thing, cell, cells)
            continue
        margin = max(0.0, 0.47 - EXTENT[thing.size]) if thing.kind not in _FILLS_CELL else 0.0
        x, y = (rng.uniform(-margin, margin) / 2 for _ in range(2))
        pen = Pen(draw, ((thing.column + 0.5 + x) * cell, (thing.row + 0.5 + y) * cell), cell)
        _DRAW[thing.kind](pen, thing)
    image = canvas.reduce(supersampling) if supersampling > 1 else canvas
    return Image.fromarray(_add_grain(np.asarray(image), rng))


def _road(draw: ImageDraw.ImageDraw, thing: Drawable, cell: float, cells: int) -> None:
    """Draw a strip from edge to edge along the upper (left) border of the road's row (column)."""
    dashes = [(i, i + 0.5) for i in range(cells)]
    for color, half, segments in (("asphalt", 0.06, [(0.0, cells)]), ("line", 0.008, dashes)):
        for start, end in segments:
            across = thing.shape == "across"
            middle = thing.row if across else thing.column
            low, high = (start, middle - half), (end, middle + half)
            box = [low, high] if across else [low[::-1], high[::-1]]
            draw.rectangle([(x * cell, y * cell) for x, y in box], fill=RGB[color])


@cache
def _grain() -> np.ndarray:
    """Texture of soil and grass: [256, 256, 1] with values in -3..3."""
    return np.random.default_rng(0).integers(-3, 4, (256, 256, 1), dtype=np.int16)


def _add_grain(pixels: np.ndarray, rng: random.Random) -> np.ndarray:
    side = pixels.shape[0]
    tile = np.roll(_grain(), (rng.randrange(256), rng.randrange(256)), (0, 1))
    repeats = -(-side // 256)
    grain = np.tile(tile, (repeats, repeats, 1))[:side, :side]
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)


def _house(pen: Pen, thing: Drawable) -> None:
    half = EXTENT[thing.size]
    pen.box("shadow", 0.06, 0.06, 2 * half, 2 * half)
    pen.box(thing.color, 0, 0, 2 * half, 2 * half)
    pen.box("shadow", 0, 0, 2 * half, 0.04)


def _tree(pen: Pen, thing: Drawable) -> None:
    pen.disc("shadow", 0.05, 0.05, 0.3)
    pen.disc("leaf", 0, 0, 0.3)
    pen.disc("light", -0.08, -0.08, 0.13)


def _area(pen: Pen, thing: Drawable, color: str) -> None:
    half = EXTENT[thing.size]
    if thing.shape == "round":
        pen.disc(color, 0, 0, half)
    elif thing.shape == "square":
        pen.box(color, 0, 0, 1.8 * half, 1.8 * half)
    elif thing.shape == "triangle":
        pen.polygon(color, (-half, half), (half, half), (0, -half))
    else:
        pen.box(color, 0, 0, 2 * half, 0.6 * half)


def _pond(pen: Pen, thing: Drawable) -> None:
    _area(pen, thing, "pond")


def _field(pen: Pen, thing: Drawable) -> None:
    _area(pen, thing, "field")
    for y in (-0.1, 0.0, 0.1):
        pen.box("furrow", 0, y * EXTENT[thing.size] / 0.3, 0.7 * EXTENT[thing.size], 0.03)


def _car(pen: Pen, thing: Drawable) -> None:
    pen.box("asphalt", 0, 0, 0.75, 0.42)
    pen.box(thing.color, 0, 0, 0.5, 0.24)
    pen.box("shadow", 0.08, 0, 0.08, 0.2)


def _bus(pen: Pen, thing: Drawable) -> None:
    pen.box("asphalt", 0, 0, 0.96, 0.46)
    pen.box("yellow", 0, 0, 0.86, 0.26)
    for x in (-0.25, 0.0, 0.25):
        pen.box("shadow", x, 0, 0.12, 0.12)


def _train(pen: Pen, thing: Drawable) -> None:
    pen.box("asphalt", 0, 0, 0.22, 1.0)
    for y in (-0.33, 0.0, 0.33):
        pen.box("red", 0, y, 0.24, 0.27)
        pen.box("white", 0, y, 0.08, 0.2)


def _plane(pen: Pen, thing: Drawable) -> None:
    pen.polygon("white", (-0.45, 0.15), (0, -0.12), (0.45, 0.15), (0, 0.08))
    pen.box("white", 0, 0, 0.1, 0.86)
    pen.polygon("white", (-0.18, 0.44), (0, 0.3), (0.18, 0.44))


def _boat(pen: Pen, thing: Drawable) -> None:
    pen.box("sea", 0, 0, 1.0, 1.0)
    pen.polygon("orange", (-0.2, 0.36), (0.2, 0.36), (0.2, -0.1), (0, -0.42), (-0.2, -0.1))
    pen.box("white", 0, 0.12, 0.2, 0.2)


def _tennis(pen: Pen, thing: Drawable) -> None:
    pen.box("court", 0, 0, 0.6, 0.9)
    pen.frame("line", 0, 0, 0.46, 0.76)
    pen.box("line", 0, 0, 0.6, 0.05)
    pen.box("line", 0, 0, 0.04, 0.4)


def _soccer(pen: Pen, thing: Drawable) -> None:
    pen.box("pitch", 0, 0, 0.94, 0.66)
    pen.frame("line", 0, 0, 0.86, 0.58)
    pen.box("line", 0, 0, 0.04, 0.58)
    pen.ring("line", 0.13)


def _baseball(pen: Pen, thing: Drawable) -> None:
    pen.polygon("pitch", (0, 0.45), (-0.45, 0), (0, -0.45), (0.45, 0))
    pen.polygon("clay", (0, 0.45), (-0.25, 0.2), (0, -0.05), (0.25, 0.2))
    pen.disc("line", 0, 0.2, 0.05)


def _basketball(pen: Pen, thing: Drawable) -> None:
    pen.box("floor", 0, 0, 0.9, 0.54)
    pen.frame("line", -0.36, 0, 0.18, 0.22)
    pen.frame("line", 0.36, 0, 0.18, 0.22)
    pen.ring("line", 0.1)


def _running(pen: Pen, thing: Drawable) -> None:
    pen.disc("clay", 0, 0, 0.47, 0.7)
    pen.disc("pitch", 0, 0, 0.3, 0.6)
    pen.ring("line", 0.38, flat=0.68)


def _sea(pen: Pen, thing: Drawable) -> None:
    pen.box("sea", 0, 0, 1.0, 1.0)


def _runway(pen: Pen, thing: Drawable) -> None:
    pen.box("asphalt", 0, 0, 1.0, 0.6)
    for x in (-0.35, 0.0, 0.35):
        pen.box("line", x, 0, 0.18, 0.06)


def _block(pen: Pen, thing: Drawable) -> None:
    pen.box("asphalt", 0, 0, 1.0, 1.0)
    pen.box("concrete", 0, 0, 0.8, 0.8)
    pen.box(thing.color, 0, 0, 0.3, 0.3)


_FILLS_CELL = ("sea", "runway", "block", "boat", "bus", "train", "plane", "tennis", "soccer", "baseball", "basketball",
          "running")  # fmt: skip
"""Objects that fill their cell and stay centered in it."""

_DRAWN_FIRST = ("sea", "road", "runway")
"""Objects below all others, in drawing order."""

_DRAW: dict[str, Callable[[Pen, Drawable], None]] = {
    "house": _house, "tree": _tree, "pond": _pond, "field": _field, "car": _car, "bus": _bus, "train": _train,
    "plane": _plane, "boat": _boat, "tennis": _tennis, "soccer": _soccer, "baseball": _baseball,
    "basketball": _basketball, "running": _running, "sea": _sea, "runway": _runway, "block": _block,
}  # fmt: skip
