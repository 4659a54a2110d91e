"""Pictures of tables, and the tables in OTSL: `office` and `paper` are looks that share no font and no ruling."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from mmpost.data.media.media import media
from mmpost.data.sources.base import Generated, check_names
from mmpost.data.worlds.tables.contents import make_small_table, make_table
from mmpost.data.worlds.tables.drawing import LOOKS, Box, places, random_style, render, squares
from mmpost.tables.otsl import write_otsl
from mmpost.tables.table import Table
from mmpost.types import Part, Sample, Split

MAX_SQUARES = 110
"""Most visual tokens of a picture."""


def cells(table: Table, boxes: Sequence[Box], size: tuple[int, int]) -> list[dict[str, Any]]:
    """The cells with a text: row and column from 1, spans, and the box as fractions of a picture of this size."""
    return [
        {
            "row": row + 1,
            "column": column + 1,
            "rowspan": cell.rowspan,
            "colspan": cell.colspan,
            "box": [round(value / size[i % 2], 5) for i, value in enumerate(box)],
        }
        for (cell, row, column), box in zip(places(table), boxes, strict=True)
        if cell.text
    ]


class TablePictures(Generated):
    """Pictures of tables.

    The truth is the table in plain OTSL. `meta` holds the look and, as `cells`, place and box of each cell with a text,
    in the form of `mmpost.data.formats.tables.Tables`. `form` is the markup that the instruction names. Raises
    ConfigError for an unknown split or look.
    """

    uid_prefix = "tables"
    make: ClassVar[Callable[[random.Random, Split], Table]] = staticmethod(make_table)

    def __init__(
        self, split: Split = "train", n: int = 1000, seed: int = 0, look: str = "office", form: str = "otsl"
    ) -> None:
        super().__init__(split, n, seed)
        check_names("look", (look,), LOOKS)
        self.look, self.prompt = look, f"table as {form}"

    def generate(self, index: int) -> Sample:
        rng = self.rng(index, f"draw {self.look}")
        table = self.table(index)
        picture, boxes = render(table, random_style(self.look, rng), rng)
        return Sample(
            uid=f"{self.uid(index)}-{self.look}",
            prompt=(Part("image", media(picture, "image")), Part("text", self.prompt)),
            truth=write_otsl(table, line_breaks=False).text,
            meta={"look": self.look, "cells": cells(table, boxes, picture.size)},
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
