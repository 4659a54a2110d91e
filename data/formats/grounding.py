"""Rows of referring expressions with boxes and points, in the format of the ViSurf and VisionReasoner training sets."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmpost.data.media.media import Media
from mmpost.data.readers.user_data import UserData
from mmpost.data.sources.base import Wrapped
from mmpost.errors import DataError
from mmpost.types import Part, Sample

MAX_LOOKED_AT = 100
"""Rows, evenly spaced, that are read at the start to compare them with what the prompt asks for."""


class Grounding(Wrapped):
    """Rows with an image, a question and `solution`: a JSON list of {"bbox_2d", "point_2d"} in pixels.

    The question (`problem`, or the user's text) replaces {question} in `prompt`; rows with complete `messages` that ask
    for the <answer> format themselves are not changed. The frame of the truth is `img_width` x `img_height` if the row
    has them, else the size of its first image. Reading a row with a malformed solution raises DataError with its name.

    An item without a point has None in the truth; other keys, such as masks, are not read. A message on stderr says if
    the prompt asks for points and no row has one, as far as looked at.
    """

    def __init__(self, rows: UserData, prompt: str) -> None:
        super().__init__(rows)
        self.prompt = prompt
        self._compare_with_prompt()

    def _compare_with_prompt(self) -> None:
        looked_at = range(0, len(self), max(1, math.ceil(len(self) / MAX_LOOKED_AT)))
        asks = False
        for index in looked_at:
            try:
                row = self.source[index]
                _, points = _boxes_and_points(row)
            except DataError:  # raised again where the row is used
                continue
            if any(point is not None for point in points):
                return
            asks = asks or bool(points and "point_2d" in _text(self._prompt(row)))
        if asks:
            which = "no row has" if looked_at.step == 1 else f"none of {len(looked_at)} rows looked at has"
            print(
                f"{getattr(self.source, 'name', None) or 'data'}: the prompt asks for point_2d, which {which}, so that "
                "points earn no reward; ask for boxes only, with config=visurf_boxes or a task.prompt of your own",
                file=sys.stderr,
            )

    def sample(self, index: int) -> Sample:
        row = self.source[index]
        images = [p for p in row.prompt if p.modality == "image"]
        if not images:
            raise DataError(f"{row.uid}: wanted an image to locate objects in, found none; add the column `image`")
        meta = {"kind": "own", "question": _text(row.prompt), **row.meta}
        return replace(row, prompt=self._prompt(row), replies=(), truth=_truth(row, images[0].value), meta=meta)

    def _prompt(self, row: Sample) -> tuple[Part, ...]:
        text = _text(row.prompt)
        if "<answer>" in text:
            return row.prompt
        question = text.lower().replace('"', "").replace("!", "").strip()
        instruction = Part("text", self.prompt.replace("{question}", question))
        images = (p for p in row.prompt if p.modality == "image")
        return (*(p for p in row.prompt if p.role == "system"), *images, instruction)


def _text(prompt: Sequence[Part]) -> str:
    """What the user asks."""
    return "".join(p.value for p in prompt if p.modality == "text" and p.role == "user").strip()


def _boxes_and_points(row: Sample) -> tuple[list[list[float]], list[list[float] | None]]:
    """The boxes of a row, and the point of each or None. Raises DataError for a malformed solution."""
    try:
        items = json.loads(row.truth) if isinstance(row.truth, str) else row.truth
        boxes = [[float(v) for v in item["bbox_2d"]] for item in items]
        points = [None if item.get("point_2d") is None else [float(v) for v in item["point_2d"]] for item in items]
    except (TypeError, AttributeError, KeyError, ValueError, OverflowError) as e:
        raise DataError(
            f'{row.uid}: wanted a solution like [{{"bbox_2d": [x1, y1, x2, y2], "point_2d": [x, y]}}], '
            f"found {row.truth!r:.200} ({type(e).__name__}: {e})"
        ) from e
    known = [point for point in points if point is not None]
    finite = all(math.isfinite(v) for numbers in (*boxes, *known) for v in numbers)
    if any(len(b) != 4 for b in boxes) or any(len(p) != 2 for p in known) or not finite:
        raise DataError(f"{row.uid}: wanted four numbers for each box and two for each point, found {row.truth!r:.200}")
    return boxes, points


def _truth(row: Sample, image: Media) -> dict[str, Any]:
    boxes, points = _boxes_and_points(row)
    header = row.meta if {"img_width", "img_height"} <= row.meta.keys() else image.header()
    size = [float(v) for k, v in header.items() if k in ("img_width", "width")]
    size += [float(v) for k, v in header.items() if k in ("img_height", "height")]
    return {"boxes": boxes, "points": points, "frame": size}
