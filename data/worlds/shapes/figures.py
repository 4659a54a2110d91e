"""Rendered rectangles of unit tiles, and numbers to find in them: sides, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from mmpost.data.media.media import media
from mmpost.data.worlds.shapes.scenes import ASK, COLOURS, LOOKS, SIDE, Drawn, held, look_of
from mmpost.errors import ConfigError
from mmpost.types import Part, Sample, Split

UNIT = 11
"""Pixels of a tile's side."""
MOST = 7
"""Tiles of the longest side."""
KINDS = ("area", "perimeter", "width", "height")
"""What can be asked; the first two follow from the others."""


def draw(width: int, height: int, corner: tuple[int, int], colour: str, look: str) -> Image.Image:
    """width x height tiles with gaps of a pixel on a square of SIDE pixels; in the shifted look, tiles are hollow."""
    canvas = Image.new("RGB", (SIDE, SIDE), LOOKS[look].background)
    pen = ImageDraw.Draw(canvas)
    for column in range(width):
        for row in range(height):
            x, y = corner[0] + column * UNIT, corner[1] + row * UNIT
            box = (x, y, x + UNIT - 3, y + UNIT - 3)
            if look == "plain":
                pen.rectangle(box, fill=COLOURS[colour])
            else:
                pen.rectangle(box, outline=COLOURS[colour], width=2)
    return canvas


class Figures(Drawn):
    """`n` questions about rectangles; kinds and looks take turns. The truth is the number as text."""

    seed_prefix = "Figures"

    def __init__(
        self,
        split: Split = "train",
        kinds: Sequence[str] = KINDS[:2],
        looks: Sequence[str] = ("plain",),
        n: int = 1000,
        seed: int = 0,
    ) -> None:
        """Raises ConfigError for an unknown kind, look or split."""
        super().__init__(split, n, seed)
        unknown = sorted(set(kinds) - set(KINDS))
        if unknown or not kinds:
            raise ConfigError(f"kinds must be some of {', '.join(KINDS)}; found {unknown or 'none'}; name those.")
        self.kinds, self.looks = tuple(kinds), tuple(looks)
        for look in looks:
            look_of(look)

    def uid(self, index: int) -> str:
        return f"figures-{'-'.join(self.looks)}-{self.split}-{self.seed}-{index}"

    def sides(self, index: int) -> tuple[int, int, tuple[int, int], str, str]:
        """Width and height in tiles, the upper left corner in pixels, colour and look; they belong to the split."""
        rng = self.rng(index)
        while True:
            look = rng.choice(self.looks)
            width, height = rng.randint(1, MOST), rng.randint(1, MOST)
            corner = rng.randint(0, SIDE - width * UNIT), rng.randint(0, SIDE - height * UNIT)
            if held((width, height, corner)) == self.split:
                return width, height, corner, rng.choice(LOOKS[look].colours), look

    def sample(self, index: int) -> Sample:
        kind = self.kinds[index % len(self.kinds)]
        w, h, corner, colour, look = self.sides(index)
        sides = f"width={w};height={h}"
        answer, cot = {
            "width": (w, f"width={w}"),
            "height": (h, f"height={h}"),
            "area": (w * h, f"{sides};{w}*{h}={w * h}"),
            "perimeter": (2 * (w + h), f"{sides};{w}+{h}={w + h};2*{w + h}={2 * (w + h)}"),
        }[kind]
        prompt = (
            Part("image", media(draw(w, h, corner, colour, look), "image")),
            Part("text", f"what is the {kind}? {ASK}"),
        )
        meta = {"family": "structure", "kind": kind, "cot": cot}
        return Sample(self.uid(index), prompt, truth=str(answer), meta=meta)
