"""GenEval's rule (arXiv 2310.11513): whether the objects that a detector found in a picture are those of its prompt.

A reply is JSON: {class: [[x0, y0, x1, y1, score, color], ...]}, boxes in pixels, scores 0 to 1; the color may be absent
where the prompt names none. The truth of a sample is {"include": [{"class", "count", "color", "position": [relation,
index of the target]}], "exclude": [{"class", "count"}]}; its meta `min_score` is the score that counted boxes exceed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mmpost.types import Reply, Sample

GAP = 0.1
"""Before their centers are compared, two objects are moved together by this part of their sizes, added up."""
CLEAR = 0.5
"""The part of the distance that must be along an axis for a relation to hold: two relations may, on the diagonal."""


class Detection(NamedTuple):
    """An object in a picture."""

    box: tuple[float, float, float, float]
    """x0, y0, x1, y1, in pixels."""
    score: float
    color: str | None


Detections = Mapping[str, Sequence[Detection]]


def read_detections(text: str) -> Detections | None:
    """The detections in a reply, by class; None if it is no JSON of this form."""
    try:
        return {name: [_detection(row) for row in rows] for name, rows in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _detection(row: Any) -> Detection:
    """Raises ValueError, TypeError or OverflowError for a row of another form."""
    *numbers, color = row if len(row) == 6 else (*row, None)
    x0, y0, x1, y1, score = (number + 0.0 for number in numbers)
    if not all(map(math.isfinite, (x0, y0, x1, y1, score))) or not isinstance(color, str | None):
        raise ValueError(f"wanted finite numbers and a color, found {row}")
    return Detection((x0, y0, x1, y1), score, color)


def counted(sample: Sample, detections: Detections) -> dict[str, list[Detection]]:
    """The detections whose score is high enough, in single precision as detectors give it, the highest first."""
    least = np.float32(sample.meta["min_score"])
    return {
        name: sorted((each for each in found if np.float32(each.score) > least), key=lambda each: -each.score)
        for name, found in detections.items()
    }


def readable(sample: Sample, text: str) -> Detections | None:
    """The detections in a reply that count; None if they cannot be read, or lack a color that is asked for."""
    detections = read_detections(text)
    if detections is None:
        return None
    found = counted(sample, detections)
    lacks_color = any(
        "color" in wanted and any(each.color is None for each in found.get(wanted["class"], ())[: wanted["count"]])
        for wanted in sample.truth["include"]
    )
    return None if lacks_color else found


def has_objects(sample: Sample, found: Detections | None) -> float:
    """1 if a picture has what its prompt asks for, and too many of nothing that the truth excludes; else 0.

    Of each class only the `count` objects with the highest scores are looked at: all must have the color, and each of
    them the relation to each of the target's.
    """
    if found is None:
        return 0.0
    groups: list[Sequence[Detection]] = []
    for wanted in sample.truth["include"]:
        group = found.get(wanted["class"], ())[: wanted["count"]]
        if len(group) < wanted["count"]:
            return 0.0
        if "color" in wanted and any(each.color != wanted["color"] for each in group):
            return 0.0
        if "position" in wanted:
            relation, target = wanted["position"]
            if not all(relation in relations(a, b) for a in group for b in groups[target]):
                return 0.0
        groups.append(group)
    excluded = sample.truth.get("exclude", ())
    return float(all(len(found.get(other["class"], ())) < other["count"] for other in excluded))


def relations(a: Detection, b: Detection) -> set[str]:
    """Where `a` is, seen from `b`: left of, right of, above, below; two of them on the diagonal, none in the middle."""
    boxes: Float[np.ndarray, "object corner axis"] = np.array([a.box, b.box], np.float32).reshape(2, 2, 2)
    with np.errstate(over="ignore", invalid="ignore"):
        offset = np.subtract(*boxes.mean(axis=1))
        sizes = np.abs(boxes[:, 1] - boxes[:, 0]).sum(axis=0)
        apart = np.maximum(np.abs(offset) - GAP * sizes, 0) * np.sign(offset)
        if (np.abs(apart) < 1e-3).all():
            return set()
        x, y = apart / np.linalg.norm(offset)
    holds = {"left of": x < -CLEAR, "right of": x > CLEAR, "above": y < -CLEAR, "below": y > CLEAR}
    return {name for name, does in holds.items() if does}


def geneval(sample: Sample, reply: Reply) -> float:
    """1 if the detections in the reply are what the prompt asks for, else 0."""
    return has_objects(sample, readable(sample, reply.text))
