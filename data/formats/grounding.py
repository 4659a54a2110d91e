"""Rows of referring expressions with boxes and points, in the format of the ViSurf and VisionReasoner training sets."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from mmpost.data.media.media import Media
from mmpost.data.readers.user_data import UserData
from mmpost.data.sources.base import Wrapped
from mmpost.errors import DataError
from mmpost.types import Part, Sample


class Grounding(Wrapped):
    """Rows with an image, a question and `solution`: a JSON list of {"bbox_2d", "point_2d"} in pixels.

    The question (`problem`, or the user's text) replaces {question} in `prompt`; rows with complete `messages` that ask
    for the <answer> format themselves are not changed. The frame of the truth is `img_width` x `img_height` if the row
    has them, else the size of its first image. Reading a row with a malformed solution raises DataError with its name.
    """

    def __init__(self, rows: UserData, prompt: str) -> None:
        super().__init__(rows)
        self.prompt = prompt

    def sample(self, index: int) -> Sample:
        row = self.source[index]
        images = [p for p in row.prompt if p.modality == "image"]
        if not images:
            raise DataError(f"{row.uid}: wanted an image to locate objects in, found none; add the column `image`")
        text = "".join(p.value for p in row.prompt if p.modality == "text" and p.role == "user").strip()
        prompt = row.prompt
        if "<answer>" not in text:
            question = text.lower().replace('"', "").replace("!", "").strip()
            instruction = Part("text", self.prompt.replace("{question}", question))
            prompt = (*(p for p in row.prompt if p.role == "system"), *images, instruction)
        meta = {"kind": "own", "question": text, **row.meta}
        return replace(row, prompt=prompt, replies=(), truth=_truth(row, images[0].value), meta=meta)


def _truth(row: Sample, image: Media) -> dict[str, Any]:
    try:
        items = json.loads(row.truth) if isinstance(row.truth, str) else row.truth
        boxes = [[float(v) for v in item["bbox_2d"]] for item in items]
        points = [[float(v) for v in item["point_2d"]] for item in items]
    except (TypeError, KeyError, ValueError, OverflowError) as e:
        raise DataError(
            f'{row.uid}: wanted a solution like [{{"bbox_2d": [x1, y1, x2, y2], "point_2d": [x, y]}}], '
            f"found {row.truth!r:.200} ({type(e).__name__}: {e})"
        ) from e
    if any(len(b) != 4 for b in boxes) or any(len(p) != 2 for p in points):
        raise DataError(f"{row.uid}: wanted four numbers for each box and two for each point, found {row.truth!r:.200}")
    header = row.meta if {"img_width", "img_height"} <= row.meta.keys() else image.header()
    size = [float(v) for k, v in header.items() if k in ("img_width", "width")]
    size += [float(v) for k, v in header.items() if k in ("img_height", "height")]
    return {"boxes": boxes, "points": points, "frame": size}
