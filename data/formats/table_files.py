"""Annotations of tables as PubTabNet, FinTabNet and OmniDocBench release them: their HTML and the boxes of their cells.

| | annotation of a table |
|---|---|
| PubTabNet 2.0, FinTabNet 1.0 | `html` {"structure": {"tokens"}, "cells": [{"tokens", "bbox"}]} |
| *_OTSL of docling-project (Parquet) | `html`: tokens of the structure; `cells` [[{"tokens", "bbox"}]] |
| OmniDocBench | a list of pages with `layout_dets`; those of `category_type` "table" have `poly` and `html` |

Functions here raise DataError with the key, but without file and row, which the caller adds.
"""

from __future__ import annotations

import html
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmpost.data.readers.json_rows import parse_list
from mmpost.data.readers.tables import Opener, RowList
from mmpost.errors import DataError
from mmpost.tables.html import read_html

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2; from the top left, except in PDF files."""

_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_END_OF_CELL = ("</td>", "</th>")
_MARK = "\ue000"  # for private use, in no text


class Place(NamedTuple):
    """Where a cell begins in a table, counted from 1, and what it spans."""

    row: int
    column: int
    rowspan: int
    colspan: int


class Annotation(NamedTuple):
    """A table whose contents of cells are apart from its structure."""

    html: str
    places: tuple[Place | None, ...]
    """The place of each cell; None for one that is in no row."""
    boxes: tuple[Box | None, ...]
    """The box of the text in each cell, as annotated; None for empty cells."""


def read_annotation(structure: Any, cells: Any, structure_key: str, cells_key: str) -> Annotation:
    """A table from the tokens of its structure and its cells; the keys are for messages.

    The tokens of cell i are put before the i-th `</td>` and characters are escaped, as PubTabNet's code does. Tokens of
    several characters are tags, or text in some conversions, which is then escaped, too. Boxes are those of cells with
    tokens. The structure is not checked: the cells of some tables in these sets do not fill a rectangle.
    """
    tokens = _texts(structure, structure_key)
    if not isinstance(cells, list | tuple):
        raise DataError(f"wanted a list of cells, found {cells!r:.80} in {cells_key!r}; correct the row")
    ends = sum(token in _END_OF_CELL for token in tokens)
    if ends != len(cells):
        raise DataError(
            f"wanted as many cells as </td> in {structure_key!r}, {ends}, found {len(cells)} in {cells_key!r}; correct "
            "the row"
        )
    contents, boxes = [], []
    for number, cell in enumerate(cells):
        key = f"{cells_key}[{number}]"
        if not isinstance(cell, Mapping):
            raise DataError(f"wanted a cell with its tokens, found {cell!r:.80} in {key!r}; correct the row")
        contents.append(_texts(cell.get("tokens"), f"{key}.tokens"))
        boxes.append(read_box(cell["bbox"], f"{key}.bbox") if cell.get("bbox") and contents[-1] else None)
    # The same structure with numbers for texts tells which cell is where; it may hold texts of its own.
    numbers = [[f"{_MARK}{number}"] for number in range(len(cells))]
    grid = read_html(_document(tokens, numbers), strict=False).table.grid()
    places = {
        int(cell.text.rpartition(_MARK)[2]): Place(row, column, cell.rowspan, cell.colspan)
        for row, positions in enumerate(grid, 1)
        for column, (cell, down, right) in enumerate(positions, 1)
        if down == right == 0 and cell.text.rpartition(_MARK)[2].isdecimal()
    }
    markup = _document(tokens, [[t if _TAG.fullmatch(t) else html.escape(t, quote=False) for t in c] for c in contents])
    return Annotation(markup, tuple(map(places.get, range(len(cells)))), tuple(boxes))


def _document(structure: Sequence[str], contents: Sequence[Sequence[str]]) -> str:
    cells = iter(contents)
    parts: list[str] = []
    for token in structure:
        if token in _END_OF_CELL:
            parts += next(cells)
        parts.append(token)
    return f"<html><body><table>{''.join(parts)}</table></body></html>"


def _texts(value: Any, key: str) -> Sequence[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(token, str) for token in value):
        raise DataError(f"wanted a list of tokens (texts), found {value!r:.80} in {key!r}; correct the row")
    return value


def is_box(value: Any) -> bool:
    """Whether a value is a list of numbers x1, y1, x2, y2 in this order; further elements are ignored."""
    numbers = value[:4] if isinstance(value, list | tuple) else ()
    finite = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in numbers)
    return len(numbers) == 4 and finite and numbers[0] <= numbers[2] and numbers[1] <= numbers[3]


def read_box(value: Any, key: str) -> Box:
    """The first four numbers of a list as a box; raises DataError for anything else."""
    if not is_box(value):
        raise DataError(
            f"wanted a box [x1, y1, x2, y2], x1 <= x2 and y1 <= y2, found {value!r:.80} in {key!r}; correct the row"
        )
    return (float(value[0]), float(value[1]), float(value[2]), float(value[3]))


def relative_box(box: Box, frame: Box, flipped: bool = False) -> Box | None:
    """A box as fractions of `frame` (0 to 1 from the top left), cut at its sides; None if nothing is left.

    `flipped`: y is counted from the bottom, as in PDF files.
    """
    width, height = frame[2] - frame[0], frame[3] - frame[1]
    x = [min(1.0, max(0.0, (v - frame[0]) / width)) for v in (box[0], box[2])]
    y = [min(1.0, max(0.0, (v - frame[1]) / height)) for v in (box[1], box[3])]
    top, bottom = (1 - y[1], 1 - y[0]) if flipped else y
    return (x[0], top, x[1], bottom) if x[0] < x[1] and top < bottom else None


def omnidocbench(path: Path) -> RowList | None:
    """The tables of OmniDocBench.json as rows that `tables.py` reads; None for any other file.

    Tables to ignore, and those without HTML, are left out, which a message on stderr counts. Rows have the number of
    their page in the file; a malformed page is one bad row.
    """
    pages = parse_list(path.read_bytes())
    if not isinstance(pages, list) or not any(isinstance(p, Mapping) and "layout_dets" in p for p in pages):
        return None
    rows: list[Any] = []
    numbers: list[int] = []
    left_out = 0
    for number, page in enumerate(pages, 1):
        try:
            found: list[Any] = [page] if isinstance(page, DataError) else list(_tables(page))
        except DataError as error:
            found = [error]
        rows += [row for row in found if row is not None]
        left_out += found.count(None)
        numbers += [number] * (len(rows) - len(numbers))
    if left_out:
        print(f"{path.name}: left out {left_out} tables that are to be ignored or have no html", file=sys.stderr)
    return RowList(rows, path.name, path.parent, numbers)


def _tables(page: Any) -> Iterator[dict[str, Any] | DataError | None]:
    """A row for each table of a page, None for one that is left out."""
    info = page.get("page_info") if isinstance(page, Mapping) else None
    info = info if isinstance(info, Mapping) else {}
    image = info.get("image_path")
    if not isinstance(image, str) or not image:
        raise DataError(f"wanted the image of a page in 'page_info.image_path', found {page!r:.80}; correct the page")
    elements = page.get("layout_dets")
    if not isinstance(elements, list):
        raise DataError(f"wanted a list of elements, found {elements!r:.80} in 'layout_dets'; correct the page")
    for number, element in enumerate(elements):
        key = f"layout_dets[{number}]"
        if not isinstance(element, Mapping):
            yield DataError(f"wanted an element of a page, found {element!r:.80} in {key!r}; correct the page")
        elif element.get("category_type") == "table":
            if element.get("ignore") or element.get("html") in (None, ""):
                yield None
                continue
            row = {
                "id": f"{image}#{number}",
                "filename": image,
                "html": element["html"],
                "page": {
                    "poly": element.get("poly"),
                    "width": info.get("width"),
                    "height": info.get("height"),
                    "key": key,
                },
                "anno_id": element.get("anno_id"),
                "attribute": element.get("attribute"),
                "page_attribute": info.get("page_attribute"),
            }
            yield row


def read_polygon(value: Any, key: str) -> Box:
    """The box around a polygon x1, y1, ..., x4, y4; raises DataError for anything else."""
    points = value if isinstance(value, list | tuple) and len(value) == 8 else ()
    if not points or not all(isinstance(v, int | float) and math.isfinite(v) for v in points):
        raise DataError(f"wanted 8 numbers, x and y of 4 corners, found {value!r:.80} in {key!r}; correct the page")
    return read_box([min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])], key)


OPENERS: Mapping[str, Opener] = {".json": omnidocbench}
"""Readers of the released files, by suffix; those of the other sets hold rows."""
