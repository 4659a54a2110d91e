"""Rewards and measures for answers that are a JSON list of boxes and points.

An answer is `<answer>[{"bbox_2d": [x1, y1, x2, y2], "point_2d": [x, y]}, ...]</answer>`, an empty list where there is
no such object. It is written in the frame of the model (`Sample.frame`) and scored in the frame of the truth, which is
`{"boxes": [[x1, y1, x2, y2], ...], "points": [[x, y], ...], "frame": [width, height]}`. No reply makes a reward raise;
a truth of another kind raises DataError.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mmpost.core.annotations import Mark, register
from mmpost.errors import DataError
from mmpost.rewards.text import answer, non_repeat, think_format
from mmpost.types import CoordinateFrame, Reply, Reward, Sample

MOST = 120
"""Objects that count on either side; the rest of a longer list is left out."""

NEAR_BOX, NEAR_POINT = 10 / 840, 30 / 840
"""Distances that still count as right, as a share of the frame: 10 and 30 pixels of an image of 840 x 840."""


class Objects(NamedTuple):
    """Boxes and points of one list, in one frame; NaN where an item lacks one or it is malformed."""

    boxes: NDArray[np.float64]
    """[object, 4]: x1, y1, x2, y2."""
    points: NDArray[np.float64]
    """[object, 2]: x, y."""

    def __len__(self) -> int:  # number of objects, not of fields
        return self.boxes.shape[0]


def _numbers(value: Any, n: int) -> list[float] | None:
    """`value` as `n` finite numbers, or None."""
    if not isinstance(value, list) or len(value) != n:
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9 for v in value):
        return None
    return [float(v) for v in value]


def parse_items(text: str) -> list[Any] | None:
    """The list inside the first answer tags, whatever its items are; None where there is no tag or no JSON list."""
    inside = answer(text)
    if inside is None:
        return None
    try:
        items = json.loads(inside)
    except (ValueError, RecursionError):
        return None
    return items if isinstance(items, list) else None


def parse_answer(text: str) -> Objects | None:
    """Boxes and points of an answer, in the frame in which it was written; None where it cannot be read as a list.

    An item without a well-formed box (or point) stays in the list with NaN in its place: it matches nothing.
    """
    items = parse_items(text)
    if items is None:
        return None
    fields = [i if isinstance(i, dict) else {} for i in items[:MOST]]
    boxes = [_numbers(f.get("bbox_2d"), 4) or [math.nan] * 4 for f in fields]
    points = [_numbers(f.get("point_2d"), 2) or [math.nan] * 2 for f in fields]
    return Objects(np.array(boxes, float).reshape(-1, 4), np.array(points, float).reshape(-1, 2))


def _predicted(sample: Sample, reply: Reply) -> Objects | None:
    """The objects of a reply in the frame of the truth; without `Sample.frame` the two are the same."""
    found = parse_answer(reply.text)
    if found is None or sample.frame is None:
        return found
    width, height = _truth(sample)["frame"]
    scale = np.array(sample.frame.convert(CoordinateFrame(width, height), (1.0, 1.0)))
    return Objects(found.boxes * np.tile(scale, 2), found.points * scale)


def _is_truth(found: Any) -> bool:
    return isinstance(found, Mapping) and {"boxes", "points", "frame"} <= found.keys()


def _truth(sample: Sample) -> Mapping[str, Any]:
    """Boxes, points and their frame. Raises DataError for a truth of another kind."""
    if not _is_truth(sample.truth):
        raise DataError(
            f"sample {sample.uid!r}: to score boxes and points, wanted a truth "
            '{"boxes": [[x1, y1, x2, y2], ...], "points": [[x, y], ...], "frame": [width, height]}, '
            f"found {sample.truth!r:.200}; choose a task that reads boxes, such as visurf, or another reward"
        )
    return sample.truth


def _expected(sample: Sample) -> Objects:
    """The objects of the truth."""
    truth = _truth(sample)
    boxes, points = truth["boxes"][:MOST], truth["points"][:MOST]
    return Objects(np.array(boxes, float).reshape(-1, 4), np.array(points, float).reshape(-1, 2))


def iou(a: NDArray[np.float64], b: NDArray[np.float64], inclusive: bool = False) -> NDArray[np.float64]:
    """Intersection over union of every box of `a` [n, 4] with every box of `b` [m, 4]: [n, m]; 0 where one is NaN.

    Continuous coordinates; `inclusive` counts the last pixel too (widths and heights are one larger).
    """
    one = float(inclusive)
    a, b = a[:, None], b[None]
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    both = np.clip(high - low + one, 0, None).prod(-1)
    area_a = np.clip(a[..., 2:] - a[..., :2] + one, 0, None).prod(-1)
    area_b = np.clip(b[..., 2:] - b[..., :2] + one, 0, None).prod(-1)
    union = area_a + area_b - both
    return np.nan_to_num(np.divide(both, union, out=np.zeros_like(both), where=union > 0))


def pair_scores(found: Objects, truth: Objects, frame: Sequence[float], inclusive: bool = False) -> NDArray[np.float64]:
    """Score of every pair, 0 to 3: [found, truth]. One each for IoU above 0.5, a near box, a near point inside its box.

    Near: mean absolute difference of the box's coordinates below `NEAR_BOX`, distance of the points below `NEAR_POINT`,
    in units of the frame's sides.
    """
    sides = np.asarray(frame, float)
    overlap = iou(found.boxes, truth.boxes, inclusive) > 0.5
    gap = np.abs(found.boxes[:, None] - truth.boxes[None]) / np.tile(sides, 2)
    off = np.linalg.norm((found.points[:, None] - truth.points[None]) / sides, axis=-1)
    inside = ((found.points >= found.boxes[:, :2]) & (found.points <= found.boxes[:, 2:])).all(-1)
    near_box, near_point = gap.mean(-1) < NEAR_BOX, (off < NEAR_POINT) & np.expand_dims(inside, 1)
    return np.stack([overlap, near_box, near_point]).astype(np.float64).sum(axis=0)


def best_total(scores: NDArray[np.float64]) -> float:
    """Largest sum of scores over one-to-one pairings of rows with columns (Hungarian method)."""
    if not scores.size:
        return 0.0
    rows, columns = linear_sum_assignment(scores, maximize=True)
    return float(scores[rows, columns].sum())


def answer_format(sample: Sample, reply: Reply) -> float:
    """0 to 2: the mean over items of a well-formed box plus a well-formed point; 2 for a list that is empty rightly.

    0 for what is no JSON list, and for an empty list where there is something to find.
    """
    items = parse_items(reply.text)
    if not items:
        return 2.0 if items == [] and not _truth(sample)["boxes"] else 0.0
    fields = [i if isinstance(i, dict) else {} for i in items]
    lists = [(f.get("bbox_2d"), f.get("point_2d")) for f in fields]
    good = [(isinstance(b, list) and len(b) == 4) + (isinstance(p, list) and len(p) == 2) for b, p in lists]
    return sum(good) / len(good)


def box_accuracy(sample: Sample, reply: Reply, inclusive: bool = False) -> float:
    """0 to 3: scores of the best one-to-one matching, over the larger of the two numbers of objects.

    Where nothing is to be found, 3 for an empty list and 0 for anything else.
    """
    found, truth = _predicted(sample, reply), _expected(sample)
    if found is None:
        return 0.0
    if not len(truth):
        return 0.0 if len(found) else 3.0
    total = best_total(pair_scores(found, truth, _truth(sample)["frame"], inclusive))
    return total / max(len(found), len(truth))


@register
def _marks(sample: Sample, reply: Reply | None) -> list[Mark]:
    """Boxes and points as shares of the truth's frame, for the log and the report; malformed ones are left out."""
    if not _is_truth(sample.truth):
        return []
    objects = _expected(sample) if reply is None else _predicted(sample, reply)
    if objects is None:
        return []
    sides = np.array(sample.truth["frame"], float)
    drawn = [Mark("box", tuple(box / np.tile(sides, 2))) for box in objects.boxes if np.isfinite(box).all()]
    return [*drawn, *(Mark("point", tuple(point / sides)) for point in objects.points if np.isfinite(point).all())]


REWARDS: Mapping[str, Reward] = {
    "think_format": think_format,
    "answer_format": answer_format,
    "box_accuracy": box_accuracy,
    "non_repeat": non_repeat,
}
"""What a policy is trained on: the sum is at most 7; a label, which carries no thought, gets 6."""


def _hits(sample: Sample, reply: Reply) -> tuple[float, int, int]:
    """Boxes found (one to one, IoU above 0.5), boxes written, boxes of the truth."""
    found, truth = _predicted(sample, reply), _expected(sample)
    if found is None:
        return 0.0, 0, len(truth)
    return best_total((iou(found.boxes, truth.boxes) > 0.5).astype(float)), len(found), len(truth)


def true_positives(sample: Sample, reply: Reply) -> float:
    """Boxes of the truth that were found: IoU above 0.5, one to one."""
    return _hits(sample, reply)[0]


def false_positives(sample: Sample, reply: Reply) -> float:
    """Boxes written that match none of the truth."""
    hits, written, _ = _hits(sample, reply)
    return written - hits


def false_negatives(sample: Sample, reply: Reply) -> float:
    """Boxes of the truth that were not found."""
    hits, _, wanted = _hits(sample, reply)
    return wanted - hits


def point_hit(sample: Sample, reply: Reply) -> float | None:
    """Share of the truth's boxes that hold a point of the answer, one to one; None where there are none."""
    found, truth = _predicted(sample, reply), _expected(sample)
    if not len(truth):
        return None
    if found is None:
        return 0.0
    low, high = truth.boxes[None, :, :2], truth.boxes[None, :, 2:]
    inside = ((found.points[:, None] >= low) & (found.points[:, None] <= high)).all(-1)
    return best_total(inside.astype(float)) / len(truth)


def rejection(sample: Sample, reply: Reply) -> float | None:
    """Where there is nothing to find: 1 for an empty list that was read as one, else 0. None where there is something.

    An answer that cannot be read is no rejection.
    """
    if _truth(sample)["boxes"]:
        return None
    found = _predicted(sample, reply)
    return float(found is not None and not len(found))


def parse_failure(sample: Sample, reply: Reply) -> float:
    """1 where no list can be read from the answer."""
    return float(parse_answer(reply.text) is None)


detection: Mapping[str, Reward] = {
    "true_positives": true_positives,
    "false_positives": false_positives,
    "false_negatives": false_negatives,
    "point_hit": point_hit,
    "rejection": rejection,
    "parse_failure": parse_failure,
    "think_format": think_format,
    "box_accuracy": box_accuracy,
}
"""What an evaluation measures on each reply; `detection_summary` adds it up."""


def detection_summary(samples: Sequence[Sample]) -> dict[str, float]:
    """Metrics in percent over replies scored by `detection`: `f1`, `precision` and `recall` over all boxes together.

    `box_accuracy` is the mean of the reward (0 to 3). A metric that no reply has (`rejection` without empty truths) is
    left out.
    """
    scores = [reply.scores for sample in samples for reply in sample.replies]
    hits, wrong, missed = (sum(s[name] for s in scores) for name in list(detection)[:3])
    summary = {
        "f1": 200 * hits / max(1.0, 2 * hits + wrong + missed),
        "precision": 100 * hits / max(1.0, hits + wrong),
        "recall": 100 * hits / max(1.0, hits + missed),
    }
    for name in list(detection)[3:]:
        known = [s[name] for s in scores if name in s]
        if known:
            summary[name] = sum(known) / len(known) * (1 if name == "box_accuracy" else 100)
    return summary
