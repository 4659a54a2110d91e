"""Rendered rectangles of unit tiles, with questions about their sides, area and perimeter."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from mmpost.data.media.media import media
from mmpost.data.sources.base import GeneratedQuestions
from mmpost.data.worlds.shapes.scenes import ASK, COLOURS, LOOKS, SIDE, ShapeSource, look_of, split_by_hash
from mmpost.types import Part, Sample, Split

UNIT = 11
"""Side of a tile in pixels."""
MAX_TILES = 7
"""Maximum length of a side in tiles."""
QUESTION_TYPES = ("area", "perimeter", "width", "height")
"""Area and perimeter require arithmetic; width and height only perception."""


def render(width: int, height: int, corner: tuple[int, int], color: str, look: str) -> Image.Image:
    """Render width x height tiles, one pixel apart, in an image of SIDE pixels; the shifted look has hollow tiles."""
    canvas = Image.new("RGB", (SIDE, SIDE), LOOKS[look].background)
    pen = ImageDraw.Draw(canvas)
    for column in range(width):
        for row in range(height):
            x, y = corner[0] + column * UNIT, corner[1] + row * UNIT
            box = (x, y, x + UNIT - 3, y + UNIT - 3)
            if look == "plain":
                pen.rectangle(box, fill=COLOURS[color])
            else:
                pen.rectangle(box, outline=COLOURS[color], width=2)
    return canvas


class Figures(ShapeSource, GeneratedQuestions):
    """Questions about rectangles with alternating types and sampled looks. The truth is the number as text."""

    seed_prefix = "Figures"

    def __init__(
        self,
        split: Split = "train",
        question_types: Sequence[str] = QUESTION_TYPES[:2],
        looks: Sequence[str] = ("plain",),
        n: int = 1000,
        seed: int = 0,
    ) -> None:
        """Raises ConfigError for an unknown question type, look or split."""
        super().__init__(split, n, seed, question_types, QUESTION_TYPES)
        self.looks, self.uid_prefix = tuple(looks), f"figures-{'-'.join(looks)}"
        for look in looks:
            look_of(look)

    def sides(self, index: int) -> tuple[int, int, tuple[int, int], str, str]:
        """Width and height in tiles, the upper left corner in pixels, color and look of a figure in the split."""
        rng = self.rng(index)
        while True:
            look = rng.choice(self.looks)
            width, height = rng.randint(1, MAX_TILES), rng.randint(1, MAX_TILES)
            corner = rng.randint(0, SIDE - width * UNIT), rng.randint(0, SIDE - height * UNIT)
            if split_by_hash((width, height, corner)) == self.split:
                return width, height, corner, rng.choice(LOOKS[look].colours), look

    def generate(self, index: int) -> Sample:
        question_type = self.question_type(index)
        w, h, corner, color, look = self.sides(index)
        sides = f"width={w};height={h}"
        answer, cot = {
            "width": (w, f"width={w}"),
            "height": (h, f"height={h}"),
            "area": (w * h, f"{sides};{w}*{h}={w * h}"),
            "perimeter": (2 * (w + h), f"{sides};{w}+{h}={w + h};2*{w + h}={2 * (w + h)}"),
        }[question_type]
        prompt = (
            Part("image", media(render(w, h, corner, color, look), "image")),
            Part("text", f"what is the {question_type}? {ASK}"),
        )
        meta = {"family": "structure", "kind": question_type, "cot": cot}
        return Sample(self.uid(index), prompt, truth=str(answer), meta=meta)
