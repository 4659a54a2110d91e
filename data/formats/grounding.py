"""Rows of referring expressions with boxes and points, in the format of the ViSurf and VisionReasoner training sets."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from mmpost.data.media.media import Media
from mmpost.data.readers.user_data import Own
from mmpost.data.sources.base import Wrapped
from mmpost.errors import DataError
from mmpost.types import Part, Sample


class Grounding(Wrapped):
    """Rows with an image, a question and `solution`: a JSON list of {"bbox_2d", "point_2d"} in pixels.

    The question (`problem`, or the user's text) is put into `prompt` at {question}; rows with whole `messages` that ask
    for the <answer> format themselves stay as they are. The truth's frame is `img_width` x `img_height` where the row
    has them, else the size of its first image. Raises DataError, naming the row, for a solution that cannot be read.
    """

    def __init__(self, rows: Own, prompt: str) -> None:
        super().__init__(rows)
        self.prompt = prompt

    def sample(self, index: int) -> Sample:
        row = self.source[index]
        pictures = [p for p in row.prompt if p.modality == "image"]
        if not pictures:
            raise DataError(f"{row.uid}: wanted an image to find things in, found none; add the column `image`")
        said = "".join(p.value for p in row.prompt if p.modality == "text" and p.role == "user").strip()
        prompt = row.prompt
        if "<answer>" not in said:
            question = said.lower().replace('"', "").replace("!", "").strip()
            asked = Part("text", self.prompt.replace("{question}", question))
            prompt = (*(p for p in row.prompt if p.role == "system"), *pictures, asked)
        meta = {"kind": "own", "question": said, **row.meta}
        return replace(row, prompt=prompt, replies=(), truth=_truth(row, pictures[0].value), meta=meta)


def _truth(row: Sample, picture: Media) -> dict[str, Any]:
    try:
        items = json.loads(row.truth) if isinstance(row.truth, str) else row.truth
        boxes = [[float(v) for v in item["bbox_2d"]] for item in items]
        points = [[float(v) for v in item["point_2d"]] for item in items]
    except (TypeError, KeyError, ValueError) as e:
        raise DataError(
            f'{row.uid}: wanted a solution like [{{"bbox_2d": [x1, y1, x2, y2], "point_2d": [x, y]}}], '
            f"found {row.truth!r:.200} ({type(e).__name__}: {e})"
        ) from e
    if any(len(b) != 4 for b in boxes) or any(len(p) != 2 for p in points):
        raise DataError(f"{row.uid}: wanted four numbers for each box and two for each point, found {row.truth!r:.200}")
    header = row.meta if {"img_width", "img_height"} <= row.meta.keys() else picture.header()
    size = [float(v) for k, v in header.items() if k in ("img_width", "width")]
    size += [float(v) for k, v in header.items() if k in ("img_height", "height")]
    return {"boxes": boxes, "points": points, "frame": size}
