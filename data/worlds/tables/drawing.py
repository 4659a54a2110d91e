"""Renders tables with PIL, one character per visual token, in two looks that share neither fonts nor rulings.

Every character stands in the middle of a square of `PITCH` pixels, which is one visual token of Qwen2.5-VL: a small
model learns to read text in this pitch several times faster than text in a proportional one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from mmpost.tables.table import Cell, Table

PITCH = 28
"""Width and height of a character's square in pixels."""
BASELINE = 21
"""Pixels from the top of a square to the baseline."""
MARGIN = 4
"""Pixels around a character's square into which wide or slanted characters may reach."""

Color = tuple[int, int, int]
Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels."""


class Ruling(NamedTuple):
    """Widths of lines in pixels, 0 for none, and which rows are shaded."""

    outside: int = 0
    """Around the table."""
    ends: int = 0
    """Above and below the table."""
    head: int = 0
    """Below the headers."""
    rows: int = 0
    """Between rows."""
    columns: int = 0
    """Between columns."""
    first: int = 0
    """After the first column."""
    groups: int = 0
    """Below headers that span columns."""
    shaded: str = ""
    """"head": the headers; "stripes": every other row of the body."""


class Look(NamedTuple):
    """What a style is drawn from."""

    fonts: tuple[tuple[str, str], ...]
    """Fonts of body and headers."""
    rulings: tuple[Ruling, ...]
    sizes: tuple[int, int]
    """The smallest and the largest font in pixels."""
    inks: tuple[Color, ...]
    papers: tuple[Color, ...]
    """Colors of the background."""
    shades: tuple[Color, ...]
    """Colors of shaded rows."""


LOOKS: dict[str, Look] = {
    "office": Look(
        (
            ("DejaVuSans", "DejaVuSans"),
            ("DejaVuSans", "DejaVuSans-Bold"),
            ("DejaVuSans-Bold", "DejaVuSans-Bold"),
            ("DejaVuSerif", "DejaVuSerif"),
            ("DejaVuSerif", "DejaVuSans-Bold"),
            ("DejaVuSansMono", "DejaVuSansMono"),
        ),
        (
            Ruling(outside=1, head=1, rows=1, columns=1),
            Ruling(outside=1, head=2, rows=1, columns=1, shaded="head"),
            Ruling(ends=1, head=1, rows=1),
            Ruling(shaded="head"),
            Ruling(outside=1, head=1, columns=1, groups=1),
            Ruling(head=1, groups=1, shaded="stripes"),
        ),
        (21, 25),
        ((0, 0, 0), (20, 20, 20)),
        ((255, 255, 255), (255, 255, 255), (250, 250, 245), (244, 247, 252)),
        ((222, 228, 236), (230, 230, 230), (226, 236, 224)),
    ),
    "paper": Look(
        (
            ("DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
            ("DejaVuSans-BoldOblique", "DejaVuSans-BoldOblique"),
            ("DejaVuSerif-Italic", "DejaVuSerif-Bold"),
            ("DejaVuSerif-Bold", "DejaVuSerif-Bold"),
        ),
        (
            Ruling(ends=2, head=1, groups=1),
            Ruling(ends=2, head=1, first=1, groups=1),
            Ruling(ends=1, head=2),
            Ruling(head=1, first=1),
        ),
        (18, 20),
        ((0, 0, 0), (25, 45, 130), (90, 90, 90)),
        ((255, 255, 255), (255, 255, 255), (251, 249, 240)),
        ((235, 235, 235),),
    ),
}


@dataclass(frozen=True)
class Style:
    """How one table is drawn."""

    font: str
    head_font: str
    size: int
    """Size of the font in pixels."""
    ink: Color
    paper: Color
    shade: Color
    ruling: Ruling
    align: str
    """Where values stand in their column: left, center or right."""
    middle: bool
    """Whether texts that span rows stand in their middle, if there are lines between rows; else in the first."""
    jitter: int
    """By how many pixels characters are shifted at most."""


def random_style(look: str, rng: random.Random) -> Style:
    """A style of a look, one of `LOOKS`."""
    choices = LOOKS[look]
    font, head_font = rng.choice(choices.fonts)
    return Style(
        font,
        head_font,
        rng.randint(*choices.sizes),
        rng.choice(choices.inks),
        rng.choice(choices.papers),
        rng.choice(choices.shades),
        rng.choice(choices.rulings),
        rng.choice(("left", "center", "right")),
        rng.random() < 0.5,
        rng.randint(0, 1),
    )


# --- where cells lie ---


class Place(NamedTuple):
    """A cell, and its first row and column."""

    cell: Cell
    row: int
    column: int


def places(table: Table) -> list[Place]:
    """All cells in the order of `table.rows`."""
    return [
        Place(position.cell, r, c)
        for r, row in enumerate(table.grid())
        for c, position in enumerate(row)
        if position.down == position.right == 0
    ]


def column_starts(table: Table) -> list[int]:
    """The square at which each column starts, and that after the end; columns are one square apart."""
    found = places(table)
    widths = [1] * (1 + max(place.column + place.cell.colspan - 1 for place in found))
    for cell, _, column in sorted(found, key=lambda place: place.cell.colspan):
        covered = sum(widths[column : column + cell.colspan]) + cell.colspan - 1
        widths[column + cell.colspan - 1] += max(0, len(cell.text) - covered)
    starts = [0]
    for width in widths:
        starts.append(starts[-1] + width + 1)
    return starts


def squares(table: Table) -> int:
    """The number of squares of the picture, which is that of its visual tokens."""
    return (column_starts(table)[-1] - 1) * len(table.rows)


# --- drawing ---


def render(table: Table, style: Style, rng: random.Random) -> tuple[Image.Image, list[Box]]:
    """The picture of a table, and the box of each cell in the order of `table.rows`; `rng` shifts the characters."""
    starts, found = column_starts(table), places(table)
    head = sum(len(section.rows) for section in table.sections if section.tag == "thead")
    size = ((starts[-1] - 1) * PITCH, len(table.rows) * PITCH)
    image = Image.new("RGB", size, style.paper)
    boxes = [_box(place, starts) for place in found]
    draw = ImageDraw.Draw(image)
    for row in range(len(table.rows)):
        if style.ruling.shaded == ("head" if row < head else "stripes") and (row < head or (row - head) % 2):
            draw.rectangle((0, row * PITCH, size[0], (row + 1) * PITCH - 1), fill=style.shade)
    _lines(draw, style, found, boxes, head, size)
    for place in found:
        _text(image, place, starts, style, rng)
    return image, boxes


def _box(place: Place, starts: Sequence[int]) -> Box:
    """From the middle of the gap before a cell to that of the gap after it, without the outer halves."""
    left, right = (starts[column] * PITCH - PITCH // 2 for column in (place.column, place.column + place.cell.colspan))
    end = (starts[-1] - 1) * PITCH
    top, bottom = place.row * PITCH, (place.row + place.cell.rowspan) * PITCH
    return max(0, left), top, min(right, end), bottom


def _lines(
    draw: ImageDraw.ImageDraw,
    style: Style,
    found: Sequence[Place],
    boxes: Sequence[Box],
    head: int,
    size: tuple[int, int],
) -> None:
    ruling, (width, height) = style.ruling, size

    def across(x1: int, x2: int, y: int, line: int) -> None:
        y = min(max(0, y - line // 2), height - line)
        draw.rectangle((x1, y, x2 - 1, y + line - 1), fill=style.ink)

    def down(x: int, y1: int, y2: int, line: int) -> None:
        x = min(max(0, x - line // 2), width - line)
        draw.rectangle((x, y1, x + line - 1, y2 - 1), fill=style.ink)

    for place, (x1, y1, x2, y2) in zip(found, boxes, strict=True):
        line = ruling.columns or (ruling.first if place.column == 0 else 0)
        if line and x2 < width:
            down(x2, y1, y2, line)
        if ruling.rows and y2 < height:
            across(x1, x2, y2, ruling.rows)
        if ruling.groups and place.cell.colspan > 1:
            across(x1 + PITCH // 2 * (x1 > 0), x2 - PITCH // 2 * (x2 < width), y2, ruling.groups)
    if ruling.head and head:
        across(0, width, head * PITCH, ruling.head)
    if ruling.ends or ruling.outside:
        for y in (0, height):
            across(0, width, y, ruling.ends or ruling.outside)
    if ruling.outside:
        for x in (0, width):
            down(x, 0, height, ruling.outside)


def _text(image: Image.Image, place: Place, starts: Sequence[int], style: Style, rng: random.Random) -> None:
    cell, row, column = place
    free = starts[column + cell.colspan] - 1 - starts[column] - len(cell.text)
    align = "center" if cell.colspan > 1 else "left" if column == 0 else style.align
    first = starts[column] + {"left": 0, "center": free // 2, "right": free}[align]
    # Without lines between rows, a text in the middle would not show which rows it spans.
    row += (cell.rowspan - 1) // 2 if style.middle and style.ruling.rows else 0
    font = style.head_font if cell.header else style.font
    for number, character in enumerate(cell.text):
        x, y = ((first + number) * PITCH, row * PITCH)
        dx, dy = (rng.randint(-style.jitter, style.jitter) for _ in range(2))
        image.paste(style.ink, (x - MARGIN + dx, y - MARGIN + dy), _glyph(font, style.size, character))


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font that matplotlib ships: those of the system differ from machine to machine."""
    import matplotlib  # slow to import

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


@lru_cache(maxsize=8192)
def _glyph(font: str, size: int, character: str) -> Image.Image:
    """The mask of a character in the middle of its square, with a margin of `MARGIN` pixels."""
    side = PITCH + 2 * MARGIN
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).text((side / 2, MARGIN + BASELINE), character, fill=255, font=_font(font, size), anchor="ms")
    return mask
