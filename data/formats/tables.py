"""Images of tables with their HTML, with questions about them, or without labels."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from weakref import WeakKeyDictionary

from mmpost.config.settings import DataSettings
from mmpost.core.annotations import Mark, register
from mmpost.data.formats.table_files import (
    OPENERS,
    Annotation,
    Box,
    is_box,
    read_annotation,
    read_box,
    read_polygon,
    relative_box,
)
from mmpost.data.media.media import Media, media
from mmpost.data.readers.user_data import UserData, user_data
from mmpost.data.sources.base import Subset, Wrapped
from mmpost.errors import DataError
from mmpost.tables.questions import question_pairs
from mmpost.types import Part, Reply, Sample, Split

NOT_IN_META = ("html", "cells", "otsl", "html_restored", "html_len", "otsl_len", "bbox", "table_bbox", "page")
"""Columns of annotations that are read or repeat what is read; the rest, such as `filename`, stays in meta."""

MAX_DIFFERENCE = 0.05
"""How much the shape (width / height) of an image of a table in a PDF file may differ from that of its box."""

_splits: WeakKeyDictionary[Any, list[str | None]] = WeakKeyDictionary()
"""The column `split` of each sample, by source."""


def table_data(data: DataSettings, split: Split, prompt: str) -> Tables | None:
    """The tables that `data.train`, `data.val` or `data.test` names; None if the user sets none for this split.

    `prompt` is the instruction for rows without one, unless `data.prompt` is set. A file with rows of several splits in
    the column `split`, as PubTabNet has, gives those of this split, except with `data.split`.
    """
    rows = user_data(data, split, loss="last", prompt=prompt, openers=OPENERS)
    return None if rows is None else Tables(rows, None if data.split else split)


class Tables(Wrapped):
    """Rows with an image of a table as samples (image, instruction) whose truth is {"html": ...}, a text or None.

    | row | image | truth |
    |---|---|---|
    | PubTabNet 2.0 (.jsonl) | `filename`, in the file's folder or its subfolder `split` | `html` |
    | FinTabNet 1.0 (.jsonl, `filename` ends in .pdf) | of the table, see below | `html` |
    | *_OTSL of docling-project (Parquet) | column `image` | columns `html` and `cells` |
    | OmniDocBench.json | cut out of the page (in the file's folder or its subfolder images) | `html` |
    | of your own | any column or placeholder for images | `html`, `solution`, or the assistant's turn |

    Meta `cells` are the cells with text, [{"row", "column", "rowspan", "colspan", "box"}], where rows and columns count
    from 1 and boxes are fractions of the image. `qa_pairs` [{"question", "answer"}] of TRivia's rows stay in meta, as
    do other columns. `<table></table>`, the assistant's turn in these rows, is no label. Reading a malformed row raises
    DataError with file, row and key.

    FinTabNet has PDF pages, which are not read: the image must be that of the table alone, as
    `A.2005.page_9.pdf_<table_id>.png` (the names in FinTabNet_OTSL) or, if a page has one table, `A/2005/page_9.png`,
    from the file's folder or its subfolder pdf. Boxes are taken to be in points from the bottom left of the page, and
    `bbox` to be that of the table; without it the boxes of cells are left out. An image of another shape than `bbox`
    raises DataError, since it is likely that of the page or of another table.

    In *_OTSL, boxes of cells are taken to be in pixels of the image from the top left, as docling-eval reads them.
    """

    def __init__(self, rows: UserData, split: Split | None = None) -> None:
        super().__init__(rows if split is None else _of_split(rows, split))

    def sample(self, index: int) -> Sample:
        row = self.source[index]
        try:
            return self._sample(index, row)
        except DataError as error:
            raise DataError(f"{row.label}: {error}") from error

    def _sample(self, index: int, row: Sample) -> Sample:
        meta = dict(row.meta)
        if "qa_pairs" in meta:
            pairs = question_pairs(meta["qa_pairs"])
            meta["qa_pairs"] = [{**pair, **q._asdict()} for pair, q in zip(meta["qa_pairs"], pairs, strict=True)]
        html = row.meta.get("html")
        images = [part for part in row.prompt if part.modality == "image"]
        if html is None:
            if not images:
                raise DataError("wanted an image of a table, found none; add the column 'image'")
            return replace(row, replies=(), truth=_label(row), meta=meta)
        meta = {key: value for key, value in meta.items() if key not in NOT_IN_META}
        page = row.meta.get("page")
        if isinstance(page, Mapping) and "poly" in page:
            image, meta["page_box"] = self._cut_out(index, _names(row.meta), page)
        else:
            image = images[0].value if images else self._image(index, _names(row.meta))
        if isinstance(html, str):
            truth = _markup(html)
        else:
            annotation = table_annotation(row.meta)
            truth, meta["cells"] = annotation.html, list(_cells(annotation, row.meta, image))
        prompt = row.prompt
        if not images:
            system = [part for part in prompt if part.role == "system"]
            prompt = (*system, Part("image", image), *(part for part in prompt if part.role != "system"))
        return replace(row, prompt=prompt, replies=(), truth={"html": truth}, meta=meta)

    def _image(self, index: int, names: Sequence[str]) -> Media:
        """The first of the named images that exists; else the first, so that reading it says what is missing."""
        source: Any = self.source
        found = [source.medium(index, name, "image") for name in names]
        return next((m for m in found if not isinstance(m.source, Path) or os.path.exists(m.source)), found[0])

    def _cut_out(self, index: int, names: Sequence[str], table: Mapping[str, Any]) -> tuple[Media, list[float]]:
        """The picture of a table on a page, and its box as fractions of the page."""
        page = self._image(index, (*names, *(f"images/{name}" for name in names)))
        key = f"{table.get('key', 'page')}.poly"
        header = page.header()
        # Pages may be stored in another resolution than they were annotated in.
        width, height = (
            float(value) if isinstance(value := table[side], int | float) and value > 0 else header[side]
            for side in ("width", "height")
        )
        box = read_polygon(table["poly"], key)
        inside = relative_box(box, (0.0, 0.0, width, height))
        if inside is None:
            raise DataError(f"wanted a box on a page of {width:g} x {height:g}, found {list(box)} in {key!r}")
        picture = page.open()
        left, top = int(inside[0] * picture.width), int(inside[1] * picture.height)
        right, bottom = math.ceil(inside[2] * picture.width), math.ceil(inside[3] * picture.height)
        crop = media(picture.crop((left, top, right, bottom)), "image", limits=page.limits)
        return replace(crop, name=f"{page.name} [{left}, {top}, {right}, {bottom}]"), [round(v, 5) for v in inside]


def _of_split(rows: UserData, split: Split) -> UserData:
    """The rows of a split, if the column `split` names several; all rows otherwise.

    Raises DataError if others are named, but not this one.
    """
    if rows not in _splits:
        first = _split_of(rows, 0)
        # Reading all rows takes minutes for the largest sets, so only those that begin with a split are read.
        _splits[rows] = [] if first is None else [_split_of(rows, index) for index in range(len(rows))]
    splits = _splits[rows]
    named = sorted({name for name in splits if name is not None})
    if len(named) < 2:
        return rows
    if split not in named:
        raise DataError(
            f"{rows.name}: wanted rows whose split is {split}, found {', '.join(named)}; name another file for it, or "
            "set data.split to split data.train yourself"
        )
    # Rows that cannot be read belong to every split, so that none is lost without a message.
    return Subset(rows, [index for index, name in enumerate(splits) if name in (split, None)])


def _split_of(rows: UserData, index: int) -> str | None:
    try:
        name = rows[index].meta.get("split")
    except DataError:  # raised again where the row is used
        return None
    return name if isinstance(name, str) else None


def _names(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """What the image of an annotated table may be called, from the most specific name."""
    name, split = meta.get("filename"), meta.get("split")
    if not isinstance(name, str) or not name:
        raise DataError(f"wanted the name of an image, found {name!r:.80} in 'filename'; add it, or a column 'image'")
    if not name.endswith(".pdf"):
        return (name, f"{split}/{name}") if split else (name,)
    path = PurePosixPath(name)
    names = (f"{'.'.join(path.parts)}_{meta.get('table_id')}.png", str(path.with_suffix(".png")))
    return (*names, *(f"pdf/{name}" for name in names))


def table_annotation(meta: Mapping[str, Any]) -> Annotation:
    """The table of a row of PubTabNet, FinTabNet or *_OTSL. Raises DataError, with the key, for a malformed one."""
    html = meta.get("html")
    if isinstance(html, Mapping):
        structure = html.get("structure")
        tokens = structure.get("tokens") if isinstance(structure, Mapping) else None
        return read_annotation(tokens, html.get("cells"), "html.structure.tokens", "html.cells")
    cells = meta.get("cells")
    if isinstance(cells, list | tuple) and all(isinstance(row, list | tuple) for row in cells):
        cells = [cell for row in cells for cell in row]
    return read_annotation(html, cells, "html", "cells")


def _cells(annotation: Annotation, meta: Mapping[str, Any], image: Media) -> Iterable[dict[str, Any]]:
    """The cells that have a place and a box."""
    size = image.header()
    frame: Box | None = (0.0, 0.0, size["width"], size["height"])
    flipped = str(meta.get("filename")).endswith(".pdf")
    if flipped:
        frame = None if meta.get("bbox") is None else read_box(meta["bbox"], "bbox")
    if frame is None:
        return
    if flipped:
        _check_shape(frame, size["width"], size["height"], image)
    for place, box in zip(annotation.places, annotation.boxes, strict=True):
        inside = None if box is None else relative_box(box, frame, flipped)
        if place is not None and inside is not None:
            yield {**place._asdict(), "box": [round(v, 5) for v in inside]}


def _check_shape(box: Box, width: float, height: float, image: Media) -> None:
    wide, high = box[2] - box[0], box[3] - box[1]
    # Sides are rounded to pixels.
    tolerance = MAX_DIFFERENCE + 2 / min(width, height)
    if not wide * high or abs(width / height / (wide / high) - 1) > tolerance:
        raise DataError(
            f"wanted an image of the table alone, of the shape of its box, {wide:g} x {high:g} points, in 'bbox', "
            f"found {image.name} of {width:g} x {height:g} pixels; cut the table out of the page"
        )


def _markup(html: str) -> str:
    if "<table" not in html.lower():
        raise DataError(f"wanted a table in HTML, found {html!r:.80} in 'html'; correct the row")
    return html


def _label(row: Sample) -> Any:
    """The truth of a row without annotation; None if it is only a subfolder, or a table without cells."""
    text = row.truth.strip().lower() if isinstance(row.truth, str) else None
    # Images in a subfolder have its name as truth, which is no table.
    is_folder = row.truth in PurePosixPath(row.uid).parts[:-1]
    return None if is_folder or text in ("", "<table></table>") else row.truth


@register
def _marks(sample: Sample, reply: Reply | None) -> list[Mark]:
    """The boxes of cells in meta `cells`, which belong to the truth; the label is row and column."""
    cells = sample.meta.get("cells")
    if reply is not None or not isinstance(cells, list | tuple):
        return []
    return [
        Mark("box", tuple(cell["box"]), label=f"r{cell['row']} c{cell['column']}")
        for cell in cells
        if isinstance(cell, Mapping) and {"row", "column", "box"} <= cell.keys() and is_box(cell["box"])
    ]
