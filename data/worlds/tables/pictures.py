"""Pictures of tables, and the tables in OTSL: `office` and `paper` are looks that share no font and no ruling."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import ClassVar

from mmpost.data.media.media import media
from mmpost.data.sources.base import Generated, check_names
from mmpost.data.worlds.tables.contents import make_small_table, make_table
from mmpost.data.worlds.tables.drawing import LOOKS, random_style, render, squares
from mmpost.tables.grammar import END_OF_ROW
from mmpost.tables.otsl import write_otsl
from mmpost.tables.table import Table
from mmpost.types import Part, Sample, Split

MAX_SQUARES = 110
"""Most visual tokens of a picture."""


def prompt_text() -> str:
    """The instruction that follows the picture."""
    return "table as otsl"


def otsl(table: Table) -> str:
    """The table in plain OTSL, without line breaks."""
    return write_otsl(table).text.replace(f"{END_OF_ROW}\n", END_OF_ROW)


class TablePictures(Generated):
    """Pictures of tables.

    The truth is the table in plain OTSL. `meta` holds the look and, as `boxes`, the box of each cell in the order of
    the table's rows: [x1, y1, x2, y2] in pixels. Raises ConfigError for an unknown split or look.
    """

    uid_prefix = "tables"
    make: ClassVar[Callable[[random.Random, Split], Table]] = staticmethod(make_table)

    def __init__(self, split: Split = "train", n: int = 1000, seed: int = 0, look: str = "office") -> None:
        super().__init__(split, n, seed)
        check_names("look", (look,), LOOKS)
        self.look = look

    def generate(self, index: int) -> Sample:
        rng = self.rng(index, f"draw {self.look}")
        picture, boxes = render(self.table(index), random_style(self.look, rng), rng)
        return Sample(
            uid=f"{self.uid(index)}-{self.look}",
            prompt=(Part("image", media(picture, "image")), Part("text", prompt_text())),
            truth=otsl(self.table(index)),
            meta={"look": self.look, "boxes": [list(box) for box in boxes]},
        )

    def table(self, index: int) -> Table:
        """The table of sample `index`, which does not depend on the look."""
        rng = self.rng(index)
        while True:
            table = type(self).make(rng, self.split)
            if squares(table) <= MAX_SQUARES:
                return table


class SmallTables(TablePictures):
    """Pictures of one to six cells, as lessons in reading."""

    uid_prefix = "small-tables"
    seed_prefix = "small"
    make = staticmethod(make_small_table)
