"""Rewards for one box that a phrase refers to (RefCOCO, RefCOCO+, RefCOCOg): right from an IoU of 0.5 on.

The truth is that of `box`: `{"boxes": [[x1, y1, x2, y2]], "points": [None], "frame": [width, height]}`. Of several
boxes the first counts; without one every reply is wrong. Replies are read in the frame in which the model writes
coordinates (`Sample.frame`). Without that, boxes are thousandths of the picture's sides, or fractions of them where no
number is large.
"""

from __future__ import annotations

import re

import numpy as np

from mmpost.rewards.box import iou
from mmpost.rewards.options import answer_span
from mmpost.types import CoordinateFrame, Reply, Sample

Box = tuple[float, float, float, float]
THOUSAND = CoordinateFrame(1000, 1000)
NOWHERE: Box = (0.0, 0.0, 0.0, 0.0)
RIGHT = 0.5
"""IoU from which on a box is right."""
_NUMBER = r"(-?\d{1,6}(?:\.\d{1,12})?)"
_BOX = re.compile(rf"[\[(]{_NUMBER},{_NUMBER}\)?,\(?{_NUMBER},{_NUMBER}[\])]")
"""Without white space: [x1,y1,x2,y2], (x1,y1,x2,y2), (x1,y1),(x2,y2)."""


def internvl_box(text: str) -> Box:
    """The box that InternVL's script reads: four numbers in the first brackets of a line that have three commas.

    What is not a number, or a reply without brackets, is a box of zeros. The last number ends at the next bracket.
    """
    for line in text.split("\n"):
        fields = line[line.find("[") :].lstrip("[").split(",", 3) if "[" in line else []
        if len(fields) == 4 and "]" in fields[3]:
            fields[3] = fields[3].partition("]")[0]
            try:
                x1, y1, x2, y2 = map(float, fields)
            except ValueError:
                return NOWHERE
            return x1, y1, x2, y2
    return NOWHERE


def internvl_score(sample: Sample, box: Box) -> float:
    """1 if the box has an IoU of 0.5 with the truth, in single precision, as InternVL's script computes it; else 0.

    Without a frame of the model, numbers that add up to 4 or more are thousandths, others fractions of the sides.
    """
    if not sample.truth["boxes"]:
        return 0.0
    predicted = np.array(box, np.float32)
    sides = np.array(sample.truth["frame"], np.float32)
    if sample.frame is not None:
        predicted = np.array(sample.frame.convert(_pixels(sample), box), np.float32)
    else:
        if predicted.sum() >= 4:
            predicted = predicted / np.float32(1000)
        predicted = predicted * np.tile(sides, 2)
    truth = np.array(sample.truth["boxes"][0], np.float32)
    with np.errstate(all="ignore"):
        size = np.clip(np.minimum(predicted[2:], truth[2:]) - np.maximum(predicted[:2], truth[:2]), 0, None)
        both = size[0] * size[1]
        area, true_area = ((b[2] - b[0]) * (b[3] - b[1]) for b in (predicted, truth))
        return float(both / (area + true_area - both) >= RIGHT)


def named_box(text: str) -> Box | None:
    """The one box that the answer of a reply gives, as [x1, y1, x2, y2] or (x1, y1), (x2, y2); None for several."""
    found = _BOX.findall(re.sub(r"\s+", "", answer_span(text)))
    boxes: set[Box] = {(float(x1), float(y1), float(x2), float(y2)) for x1, y1, x2, y2 in found}
    return boxes.pop() if len(boxes) == 1 else None


def named_box_score(sample: Sample, box: Box | None) -> float:
    """1 if the box has an IoU of 0.5 with the truth, else 0; an inverted box has none.

    Without a frame of the model, a box is fractions of the sides if no number is above 1, else thousandths.
    """
    if box is None or not sample.truth["boxes"]:
        return 0.0
    frame = sample.frame or (CoordinateFrame(1, 1) if max(box) <= 1 else THOUSAND)
    predicted = frame.convert(_pixels(sample), box)
    return float(iou(np.array([predicted]), np.array([sample.truth["boxes"][0]], float))[0, 0] >= RIGHT)


def _pixels(sample: Sample) -> CoordinateFrame:
    width, height = sample.truth["frame"]
    return CoordinateFrame(float(width), float(height))


def refcoco(sample: Sample, reply: Reply) -> float:
    """1 if the first box in brackets has an IoU of 0.5 with the truth, as InternVL's script scores it, else 0."""
    return internvl_score(sample, internvl_box(reply.text))


def refcoco_strict(sample: Sample, reply: Reply) -> float:
    """1 if the one box of the answer has an IoU of 0.5 with the truth, else 0."""
    return named_box_score(sample, named_box(reply.text))
