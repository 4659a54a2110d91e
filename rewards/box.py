"""Rewards and metrics for answers that are a JSON list of boxes and points (ViSurf, arXiv 2510.10606).

An answer is `<answer>[{"bbox_2d": [x1, y1, x2, y2], "point_2d": [x, y]}, ...]</answer>`; the list is empty if there is
no such object. The model writes coordinates in its own frame (`Sample.frame`), and rewards are computed in that of the
truth, `{"boxes": [[x1, y1, x2, y2], ...], "points": [[x, y], ...], "frame": [width, height]}`. A point of the truth may
be None; what replies say about it then counts neither for nor against them (`max_reward`). Where several answers are
right, `"alternatives": [{"boxes": ..., "points": ...}, ...]` has them all, and a reply is compared with the one that it
is nearest to; `boxes` and `points` are then those of the label. Rewards never raise because of a reply; a truth without
these keys raises DataError.
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
from mmpost.rewards.text import answer, non_repeat, think_format, thinks
from mmpost.types import CoordinateFrame, Reply, Reward, Sample

MAX_OBJECTS = 120
"""Objects beyond this many in a list are ignored: matching costs their number cubed."""

NEAR_BOX, NEAR_POINT = 10 / 840, 30 / 840
"""Tolerances as fractions of the frame's side: 10 and 30 pixels of an 840 x 840 image."""


class Objects(NamedTuple):
    """Boxes and points of one list, in one frame; NaN if an item has none or a malformed one."""

    boxes: NDArray[np.float64]
    """[object, 4]: x1, y1, x2, y2."""
    points: NDArray[np.float64]
    """[object, 2]: x, y."""

    def __len__(self) -> int:  # objects, not fields of the tuple
        return self.boxes.shape[0]


def _numbers(value: Any, n: int) -> list[float] | None:
    """`value` as `n` finite numbers, or None."""
    if not isinstance(value, list) or len(value) != n:
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9 for v in value):
        return None
    return [float(v) for v in value]


def parse_items(text: str) -> list[Any] | None:
    """The JSON list inside the first answer tags, items unchecked; None without tags or without a list."""
    content = answer(text)
    if content is None:
        return None
    try:
        items = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return items if isinstance(items, list) else None


def parse_answer(text: str) -> Objects | None:
    """Boxes and points of an answer, in the frame it was written in; None if it is not a list.

    An item without a well-formed box (or point) stays in the list as NaN, which matches nothing.
    """
    items = parse_items(text)
    if items is None:
        return None
    fields = [i if isinstance(i, dict) else {} for i in items[:MAX_OBJECTS]]
    boxes = [_numbers(f.get("bbox_2d"), 4) or [math.nan] * 4 for f in fields]
    points = [_numbers(f.get("point_2d"), 2) or [math.nan] * 2 for f in fields]
    return Objects(np.array(boxes, float).reshape(-1, 4), np.array(points, float).reshape(-1, 2))


def _predicted(sample: Sample, reply: Reply) -> Objects | None:
    """The objects of a reply, converted to the frame of the truth; unconverted without `Sample.frame`."""
    objects = parse_answer(reply.text)
    if objects is None or sample.frame is None:
        return objects
    width, height = _truth(sample)["frame"]
    scale = np.array(sample.frame.convert(CoordinateFrame(width, height), (1.0, 1.0)))
    return Objects(objects.boxes * np.tile(scale, 2), objects.points * scale)


def _is_truth(value: Any) -> bool:
    return isinstance(value, Mapping) and {"boxes", "points", "frame"} <= value.keys()


def _truth(sample: Sample) -> Mapping[str, Any]:
    """Boxes, points and their frame; raises DataError for any other truth."""
    if not _is_truth(sample.truth):
        raise DataError(
            f"{sample.label}: wanted a truth with boxes and points, "
            '{"boxes": [[x1, y1, x2, y2], ...], "points": [[x, y], ...], "frame": [width, height]}, '
            f"found {sample.truth!r:.200}; choose a task that reads boxes, such as visurf, or another reward"
        )
    return sample.truth


def _objects(truth: Mapping[str, Any]) -> Objects:
    """Boxes and points of the truth or of an alternative."""
    boxes = truth["boxes"][:MAX_OBJECTS]
    points = [[math.nan] * 2 if point is None else point for point in truth["points"][:MAX_OBJECTS]]
    return Objects(np.array(boxes, float).reshape(-1, 4), np.array(points, float).reshape(-1, 2))


def _expected(sample: Sample, predicted: Objects | None = None) -> Objects:
    """The objects of the truth, in its frame; of several alternatives those that `predicted` is nearest to: with the
    highest total of `pair_scores`, then the highest total IoU, then the first."""
    truth = _truth(sample)
    alternatives = truth.get("alternatives")
    if not alternatives or predicted is None:
        return _objects(truth)

    def nearness(one: Objects) -> tuple[float, float]:
        return best_total(pair_scores(predicted, one, truth["frame"])), best_total(iou(predicted.boxes, one.boxes))

    return max(map(_objects, alternatives), key=nearness)


def iou(a: NDArray[np.float64], b: NDArray[np.float64], inclusive: bool = False) -> NDArray[np.float64]:
    """Intersection over union of all pairs of boxes a [n, 4] and b [m, 4]: [n, m]; 0 for NaN boxes.

    Coordinates are continuous; with `inclusive` they are pixel indices, and widths and heights are one larger.
    """
    one_pixel = float(inclusive)
    a, b = a[:, None], b[None]
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    both = np.clip(high - low + one_pixel, 0, None).prod(-1)
    area_a = np.clip(a[..., 2:] - a[..., :2] + one_pixel, 0, None).prod(-1)
    area_b = np.clip(b[..., 2:] - b[..., :2] + one_pixel, 0, None).prod(-1)
    union = area_a + area_b - both
    return np.nan_to_num(np.divide(both, union, out=np.zeros_like(both), where=union > 0))


def pair_scores(
    predicted: Objects, truth: Objects, frame: Sequence[float], inclusive: bool = False
) -> NDArray[np.float64]:
    """Scores of all pairs, [predicted, truth], 0 to 3: one point each for IoU > 0.5, for a near box, for a near point.

    A box is near if the mean absolute difference of its coordinates is below `NEAR_BOX`. A point is near if it lies
    inside the predicted box and its distance is below `NEAR_POINT`. Both in units of the frame's sides.
    """
    sides = np.asarray(frame, float)
    overlap = iou(predicted.boxes, truth.boxes, inclusive) > 0.5
    gap = np.abs(predicted.boxes[:, None] - truth.boxes[None]) / np.tile(sides, 2)
    distance = np.linalg.norm((predicted.points[:, None] - truth.points[None]) / sides, axis=-1)
    inside = ((predicted.points >= predicted.boxes[:, :2]) & (predicted.points <= predicted.boxes[:, 2:])).all(-1)
    near_box, near_point = gap.mean(-1) < NEAR_BOX, (distance < NEAR_POINT) & np.expand_dims(inside, 1)
    return np.stack([overlap, near_box, near_point]).astype(np.float64).sum(axis=0)


def best_total(scores: NDArray[np.float64]) -> float:
    """The largest sum of scores [row, column] over one-to-one matchings (Hungarian method)."""
    if not scores.size:
        return 0.0
    rows, columns = linear_sum_assignment(scores, maximize=True)
    return float(scores[rows, columns].sum())


def answer_format(sample: Sample, reply: Reply) -> float:
    """0 to 2: the mean over items of 1 for a well-formed box plus 1 for a well-formed point.

    The part for points is at most the fraction of the truth's objects that have one. An empty list gets 2 if there is
    no object, else 0; anything but a JSON list gets 0.
    """
    items = parse_items(reply.text)
    if not items:
        return 2.0 if items == [] and not _truth(sample)["boxes"] else 0.0
    expected = _truth(sample)["points"]
    fields = [i if isinstance(i, dict) else {} for i in items]
    pairs = [(f.get("bbox_2d"), f.get("point_2d")) for f in fields]
    boxes = sum(isinstance(box, list) and len(box) == 4 for box, _ in pairs)
    points = sum(isinstance(point, list) and len(point) == 2 for _, point in pairs)
    known = sum(point is not None for point in expected) * len(items) / len(expected) if expected else len(items)
    return (boxes + min(points, known)) / len(items)


def box_accuracy(sample: Sample, reply: Reply, inclusive: bool = False) -> float:
    """0 to 3: the total `pair_scores` of the best matching, divided by the larger number of objects.

    An object of the truth without a point adds at most 2. If there is no object: 3 for an empty list, else 0.
    """
    predicted = _predicted(sample, reply)
    truth = _expected(sample, predicted)
    if predicted is None:
        return 0.0
    if not len(truth):
        return 0.0 if len(predicted) else 3.0
    total = best_total(pair_scores(predicted, truth, _truth(sample)["frame"], inclusive))
    return total / max(len(predicted), len(truth))


def box_accuracy_inclusive(sample: Sample, reply: Reply) -> float:
    """As `box_accuracy`, with the IoU of pixel indices, as released: widths and heights are one pixel larger."""
    return box_accuracy(sample, reply, inclusive=True)


@register
def _marks(sample: Sample, reply: Reply | None) -> list[Mark]:
    """Boxes and points as fractions of the truth's frame, for logs and reports; malformed ones are left out."""
    if not _is_truth(sample.truth):
        return []
    objects = _expected(sample) if reply is None else _predicted(sample, reply)
    if objects is None:
        return []
    sides = np.array(sample.truth["frame"], float)
    boxes = [Mark("box", tuple(box / np.tile(sides, 2))) for box in objects.boxes if np.isfinite(box).all()]
    return [*boxes, *(Mark("point", tuple(point / sides)) for point in objects.points if np.isfinite(point).all())]


REWARDS: Mapping[str, Reward] = {
    "think_format": think_format,
    "answer_format": answer_format,
    "box_accuracy": box_accuracy,
    "non_repeat": non_repeat,
}
"""The training rewards. Their sum is at most `max_reward`, and that of a label without a thought one less."""


def max_reward(sample: Sample) -> float:
    """The largest sum of `REWARDS`: 7, or 5 plus 2 times the fraction of objects with a point; 7 without objects."""
    points = _truth(sample)["points"]
    return 5.0 + 2.0 * (sum(point is not None for point in points) / len(points) if points else 1.0)


def _hits(sample: Sample, reply: Reply) -> tuple[float, int, int]:
    """Numbers of matched boxes (one to one, IoU > 0.5), of predicted boxes and of boxes of the truth."""
    predicted = _predicted(sample, reply)
    truth = _expected(sample, predicted)
    if predicted is None:
        return 0.0, 0, len(truth)
    return best_total((iou(predicted.boxes, truth.boxes) > 0.5).astype(float)), len(predicted), len(truth)


def true_positives(sample: Sample, reply: Reply) -> float:
    """The number of predicted boxes that match one of the truth (IoU > 0.5, one to one)."""
    return _hits(sample, reply)[0]


def false_positives(sample: Sample, reply: Reply) -> float:
    """The number of predicted boxes that match none of the truth."""
    hits, predicted, _ = _hits(sample, reply)
    return predicted - hits


def false_negatives(sample: Sample, reply: Reply) -> float:
    """The number of boxes of the truth without a match."""
    hits, _, expected = _hits(sample, reply)
    return expected - hits


def point_hit(sample: Sample, reply: Reply) -> float | None:
    """The fraction of the truth's boxes that contain a predicted point (one to one).

    Boxes of objects without a point do not count; None if none is left.
    """
    predicted = _predicted(sample, reply)
    truth = _expected(sample, predicted)
    boxes = truth.boxes[np.isfinite(truth.points).all(-1)]
    if not len(boxes):
        return None
    if predicted is None:
        return 0.0
    low, high = boxes[None, :, :2], boxes[None, :, 2:]
    inside = ((predicted.points[:, None] >= low) & (predicted.points[:, None] <= high)).all(-1)
    return best_total(inside.astype(float)) / len(boxes)


def as_labelled(sample: Sample, reply: Reply) -> float | None:
    """Where several answers are right: 1 if the reply has the label's boxes (IoU > 0.5), else 0; None elsewhere."""
    if "alternatives" not in _truth(sample):
        return None
    predicted, label = _predicted(sample, reply), _objects(_truth(sample))
    if predicted is None or len(predicted) != len(label):
        return 0.0
    return float(best_total((iou(predicted.boxes, label.boxes) > 0.5).astype(float)) == len(label))


def rejection(sample: Sample, reply: Reply) -> float | None:
    """If there is no object: 1 for an empty list, else 0 (also for an answer that cannot be parsed). Otherwise None."""
    if _truth(sample)["boxes"]:
        return None
    predicted = _predicted(sample, reply)
    return float(predicted is not None and not len(predicted))


def region_areas(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float]:
    """Areas of intersection and union of two regions, each covered by boxes [n, 4]; NaN boxes cover nothing."""
    a, b = a[np.isfinite(a).all(-1)], b[np.isfinite(b).all(-1)]
    # The edges of all boxes cut the plane into cells that a region covers completely or not at all.
    x, y = (np.unique(np.concatenate([a, b])[:, axis::2]) for axis in (0, 1))
    area = np.outer(np.diff(y), np.diff(x))
    in_a, in_b = _cells(a, x, y), _cells(b, x, y)
    return float(area[in_a & in_b].sum()), float(area[in_a | in_b].sum())


def _cells(boxes: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which cells of the grid with edges x and y the boxes cover: [row, column]."""
    covered = np.zeros((max(0, len(y) - 1), max(0, len(x) - 1)), bool)
    columns, rows = np.searchsorted(x, boxes[:, ::2]), np.searchsorted(y, boxes[:, 1::2])
    for (left, right), (top, bottom) in zip(columns, rows, strict=True):
        covered[top:bottom, left:right] = True
    return covered


def _areas(sample: Sample, reply: Reply) -> tuple[float, float]:
    """Intersection and union of the predicted region and that of the truth, within the truth's frame, in its pixels."""
    predicted = _predicted(sample, reply)
    truth = _expected(sample, predicted)
    sides = np.tile(np.asarray(_truth(sample)["frame"], float), 2)
    boxes = np.zeros((0, 4)) if predicted is None else predicted.boxes
    return region_areas(np.clip(boxes, 0, sides), np.clip(truth.boxes, 0, sides))


def intersection(sample: Sample, reply: Reply) -> float:
    """The area that the boxes of the reply and those of the truth both cover, in pixels of the truth's frame."""
    return _areas(sample, reply)[0]


def union(sample: Sample, reply: Reply) -> float:
    """The area that the boxes of the reply or those of the truth cover, in pixels of the truth's frame."""
    return _areas(sample, reply)[1]


def region_iou(sample: Sample, reply: Reply) -> float:
    """IoU of the regions that the boxes cover; if there is no object: 1 for an empty list, else 0."""
    rejected = rejection(sample, reply)
    if rejected is not None:
        return rejected
    both, either = _areas(sample, reply)
    return both / either if either else 0.0


def parse_failure(sample: Sample, reply: Reply) -> float:
    """1 if the answer is not a JSON list, else 0."""
    return float(parse_answer(reply.text) is None)


detection: Mapping[str, Reward] = {
    "true_positives": true_positives,
    "false_positives": false_positives,
    "false_negatives": false_negatives,
    "intersection": intersection,
    "union": union,
    "point_hit": point_hit,
    "as_labelled": as_labelled,
    "rejection": rejection,
    "region_iou": region_iou,
    "parse_failure": parse_failure,
    "think_format": think_format,
    "thinks": thinks,
    "box_accuracy": box_accuracy,
}
"""The metrics of an evaluation, reply by reply; `detection_summary` aggregates them."""


SUMMED = ("true_positives", "false_positives", "false_negatives", "intersection", "union")
"""Metrics of `detection` that are added over all replies; of the others, the mean is taken."""

COLUMNS: Mapping[str, str] = {"region_iou": "giou", "rejection": "n_acc"}
"""Names that segmentation benchmarks (gRefCOCO, arXiv 2306.00968; ReasonSeg, arXiv 2308.00692) have for means."""


def detection_summary(samples: Sequence[Sample]) -> dict[str, float]:
    """Percentages over replies scored by `detection`; f1, precision and recall are micro-averaged over all boxes.

    "giou" is the mean IoU of the predicted and the true region (not the generalized IoU), where a correctly rejected
    sample counts as 1, "ciou" the sum of all intersections over that of all unions, "n_acc" the accuracy on samples
    without an object. A region is what boxes cover, so the numbers are not those of masks; an answer that cannot be
    parsed is no rejection. Only box_accuracy is not a percentage, but the mean reward (0 to 3). Metrics that apply to
    no reply (n_acc without samples that have no object) are left out.
    """
    scores = [reply.scores for sample in samples for reply in sample.replies]
    hits, wrong, missed, both, either = (sum(s[name] for s in scores) for name in SUMMED)
    summary = {
        "f1": 200 * hits / max(1.0, 2 * hits + wrong + missed),
        "precision": 100 * hits / max(1.0, hits + wrong),
        "recall": 100 * hits / max(1.0, hits + missed),
    }
    if either:
        summary["ciou"] = 100 * both / either
    for name in (name for name in detection if name not in SUMMED):
        known = [s[name] for s in scores if name in s]
        if known:
            summary[COLUMNS.get(name, name)] = sum(known) / len(known) * (1 if name == "box_accuracy" else 100)
    return summary
