"""Rewards of boxes and points: published values, matching, coordinate frames, no objects, malformed replies."""

from __future__ import annotations

import json
import time
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from mmpost.core.annotations import marks
from mmpost.errors import DataError
from mmpost.rewards.box import (
    REWARDS,
    Objects,
    answer_format,
    best_total,
    box_accuracy,
    box_accuracy_inclusive,
    detection,
    detection_summary,
    iou,
    max_reward,
    pair_scores,
    parse_answer,
    region_areas,
)
from mmpost.types import CoordinateFrame, Part, Reply, Sample

A = {"bbox_2d": [10, 20, 50, 60], "point_2d": [30, 40]}
B = {"bbox_2d": [100, 200, 300, 400], "point_2d": [200, 300]}


def reply(text: str, **extra: Any) -> Reply:
    return Reply((Part("text", text),), **extra)


def sample(*items: dict[str, Any], side: float = 840, frame: CoordinateFrame | None = None) -> Sample:
    truth = {
        "boxes": [i["bbox_2d"] for i in items],
        "points": [i.get("point_2d") for i in items],
        "frame": [side, side],
    }
    return Sample("s", (), truth=truth, frame=frame)


def label_reply(*items: Any, thought: str | None = "so") -> Reply:
    answer = f"<answer>{json.dumps(list(items))}</answer>"
    return reply(answer if thought is None else f"<think>{thought}</think>{answer}")


def total(s: Sample, r: Reply) -> float:
    return sum(f(s, r) or 0.0 for f in REWARDS.values())


def test_a_perfect_rollout_scores_seven_and_a_label_six() -> None:
    for items in ((A,), (A, B), ()):
        assert total(sample(*items), label_reply(*items)) == 7
        assert total(sample(*items), label_reply(*items, thought=None)) == 6


def test_objects_match_in_any_order_and_extra_or_missing_ones_lower_the_score() -> None:
    assert box_accuracy(sample(A, B), label_reply(B, A)) == 3
    assert box_accuracy(sample(A, B), label_reply(A)) == 1.5
    assert box_accuracy(sample(A), label_reply(A, A)) == 1.5
    assert box_accuracy(sample(A), label_reply(A, B, B)) == 1


@pytest.mark.parametrize(
    ("box", "point", "score"),
    [
        ([10, 20, 50, 60], [30, 40], 3),
        ([10, 20, 50, 60], [30, 70], 2),  # point 30 px away is not near
        ([10, 20, 50, 60], [30, 60], 3),  # 20 px away, on the edge of the box
        ([10, 20, 50, 60], [51, 40], 2),  # 21 px away but outside the predicted box
        ([19, 29, 59, 69], [30, 40], 2),  # mean difference 9 px, IoU 0.43
        ([20, 30, 60, 70], [30, 40], 1),  # mean difference 10 px is not below 10
        ([10, 20, 50, 41], [30, 40], 3),  # IoU 0.525, mean difference 4.75
        ([10, 20, 50, 40], [30, 40], 2),  # IoU 0.5 is not above 0.5
    ],
)
def test_the_three_terms_of_a_matched_pair(box: list[int], point: list[int], score: float) -> None:
    assert box_accuracy(sample(A), label_reply({"bbox_2d": box, "point_2d": point})) == score


def test_thresholds_are_relative_to_the_frame() -> None:
    small = {"bbox_2d": [1, 2, 5, 6], "point_2d": [3, 4]}
    near = {"bbox_2d": [1.9, 2.9, 5.9, 6.9], "point_2d": [3, 4]}
    far = {"bbox_2d": [2, 3, 6, 7], "point_2d": [3, 4]}
    assert box_accuracy(sample(small, side=84), label_reply(near)) == 2
    assert box_accuracy(sample(small, side=84), label_reply(far)) == 1


def test_coordinates_are_parsed_in_the_frame_of_the_model() -> None:
    half = {"bbox_2d": [5, 10, 25, 30], "point_2d": [15, 20]}
    assert box_accuracy(sample(A, frame=CoordinateFrame(420, 420)), label_reply(half)) == 3
    assert box_accuracy(sample(A), label_reply(half)) < 3


def test_without_objects_a_parseable_empty_list_is_correct() -> None:
    none = sample()
    assert box_accuracy(none, label_reply()) == 3
    assert box_accuracy(none, label_reply(A)) == 0
    assert box_accuracy(none, reply("<answer>nothing</answer>")) == 0
    assert answer_format(none, label_reply()) == 2
    assert answer_format(sample(A), label_reply()) == 0
    assert box_accuracy(sample(A), label_reply()) == 0
    assert detection["rejection"](none, reply("no answer")) == 0
    assert detection["rejection"](none, label_reply()) == 1
    assert detection["rejection"](sample(A), label_reply()) is None


def test_format_is_the_mean_over_items() -> None:
    assert answer_format(sample(A), label_reply(A, {"bbox_2d": [1, 2, 3, 4]})) == 1.5
    assert answer_format(sample(A), label_reply({"point_2d": [1, 2]}, 7)) == 0.5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<answer>",
        "<answer></answer>",
        "<answer>{}</answer>",
        "<answer>[1, null, [], {}]</answer>",
        '<answer>[{"bbox_2d": [1, 2, 3], "point_2d": "ab"}]</answer>',
        '<answer>[{"bbox_2d": [NaN, 1, 2, Infinity], "point_2d": [true, null]}]</answer>',
        '<answer>[{"bbox_2d": [1e999, 1, 2, 3], "point_2d": [' + "9" * 400 + ", 1]}]</answer>",
        '<answer>[{"bbox_2d": ' + "[" * 5000 + "</answer>",
        '<answer>[{"bbox_2d": [50, 60, 10, 20], "point_2d": [30, 40]}]</answer>',
        "<answer>[" + "9" * 5000 + "]</answer>",
        "<think><answer>\ud800</answer>",
    ],
)
def test_malformed_replies_score_without_raising(text: str) -> None:
    for s in (sample(A), sample(A, B), sample()):
        for name, f in {**REWARDS, **detection}.items():
            value = f(s, reply(text))
            limit = 840**2 if name in ("intersection", "union") else 1000
            assert value is None or 0 <= value < limit, name
        assert box_accuracy(s, reply(text)) <= 1


@pytest.mark.parametrize("truth", ["a word", 7, None, [[1, 2, 3, 4]], {"boxes": [[1, 2, 3, 4]]}])
def test_a_truth_of_the_wrong_type_is_named(truth: Any) -> None:
    invalid, valid_reply = Sample("row 7", (), truth=truth, frame=CoordinateFrame(420, 420)), label_reply()
    for name in ("answer_format", "box_accuracy"):
        with pytest.raises(DataError, match=r"'row 7'.*wanted a truth.*found .*another reward"):
            REWARDS[name](invalid, valid_reply)
    for name in ("true_positives", "point_hit", "rejection"):
        with pytest.raises(DataError, match=r"'row 7'.*found"):
            detection[name](invalid, valid_reply)
    assert marks(invalid, valid_reply) == []


BARE_A, BARE_B = ({"bbox_2d": item["bbox_2d"]} for item in (A, B))


@pytest.mark.parametrize(
    ("items", "maximum"),
    [
        ((A, B), 7),
        ((A,), 7),
        ((BARE_A,), 5),
        ((BARE_A, BARE_B), 5),
        ((A, BARE_B), 6),
        ((A, B, BARE_A), 19 / 3),
        ((), 7),
    ],
)
def test_without_points_their_part_of_the_reward_is_absent(items: tuple[dict[str, Any], ...], maximum: float) -> None:
    """1 for the thought, 1 for no repetition; per object 1 for the form of the box and 2 for its place, and where the
    row has a point 1 for its form and 1 for its place."""
    s = sample(*items)
    assert max_reward(s) == pytest.approx(maximum)
    assert total(s, label_reply(*items)) == pytest.approx(maximum)
    assert total(s, label_reply(*items, thought=None)) == pytest.approx(maximum - 1)
    middles = [{"point_2d": [(i["bbox_2d"][j] + i["bbox_2d"][j + 2]) // 2 for j in (0, 1)], **i} for i in items]
    assert total(s, label_reply(*middles)) == pytest.approx(maximum), "points that nobody asked for change nothing"
    wrong = [{**i, "point_2d": "nowhere"} for i in items if "point_2d" not in i]
    right = [i for i in items if "point_2d" in i]
    assert total(s, label_reply(*right, *wrong)) == pytest.approx(maximum)


def test_a_point_that_is_there_still_counts_beside_others_that_are_not() -> None:
    s = sample(A, BARE_B)
    no_points = label_reply(BARE_A, BARE_B)
    assert answer_format(s, no_points) == 1
    assert box_accuracy(s, no_points) == 2
    assert detection["point_hit"](s, no_points) == 0
    assert detection["point_hit"](s, label_reply(A, BARE_B)) == 1
    assert detection["point_hit"](sample(BARE_A, BARE_B), label_reply(A, B)) is None


def with_alternatives(*items: dict[str, Any]) -> Sample:
    """Each of the items is a right answer; the label is the first."""
    one = sample(items[0])
    alternatives = [{"boxes": [i["bbox_2d"]], "points": [i["point_2d"]]} for i in items]
    return Sample("s", (), truth={**one.truth, "alternatives": alternatives})


def test_a_reply_is_compared_with_the_nearest_of_several_right_answers() -> None:
    several = with_alternatives(A, B)
    for item, labelled in ((A, 1.0), (B, 0.0)):
        answered = label_reply(item)
        assert total(several, answered) == 7 == max_reward(several)
        scores = {name: metric(several, answered) for name, metric in detection.items()}
        assert (scores["true_positives"], scores["false_positives"], scores["false_negatives"]) == (1, 0, 0)
        assert (scores["point_hit"], scores["region_iou"], scores["as_labelled"]) == (1, 1, labelled)
    both = label_reply(A, B)  # one is asked for
    assert box_accuracy(several, both) == 1.5
    assert detection["false_positives"](several, both) == 1
    assert detection["as_labelled"](several, both) == 0
    assert box_accuracy(several, label_reply()) == 0
    assert detection["false_negatives"](several, reply("none")) == 1
    shifted = {"bbox_2d": [110, 210, 310, 410], "point_2d": [210, 310]}
    assert box_accuracy(several, label_reply(shifted)) == box_accuracy(sample(B), label_reply(shifted)) > 0
    assert detection["as_labelled"](sample(A), label_reply(A)) is None


def test_at_most_120_objects_count() -> None:
    objects = parse_answer(label_reply(*[A] * 200).text)
    assert len(objects or ()) == 120
    assert box_accuracy(sample(A), label_reply(*[A] * 200)) == 3 / 120


def test_iou_continuous_and_inclusive() -> None:
    a, b = np.array([[0.0, 0, 9, 9]]), np.array([[0.0, 0, 9, 4]])
    assert iou(a, b)[0, 0] == pytest.approx(36 / 81)
    assert iou(a, b, inclusive=True)[0, 0] == pytest.approx(50 / 100)
    assert iou(a, np.array([[9.0, 0, 18, 9]]))[0, 0] == 0
    assert iou(np.zeros((1, 4)), np.zeros((1, 4)))[0, 0] == 0


def test_the_released_reward_counts_pixels() -> None:
    """IoU 10 * 4.5 / (10 * 9), not above 0.5, and with one pixel more 11 * 5.5 / (11 * 10)."""
    s = sample({"bbox_2d": [0, 0, 10, 9], "point_2d": [5, 4]}, side=200)
    r = label_reply({"bbox_2d": [0, 0, 10, 4.5], "point_2d": [50, 50]})
    assert (box_accuracy(s, r), box_accuracy_inclusive(s, r)) == (1, 2)


def pixels(boxes: np.ndarray, side: int) -> np.ndarray:
    """The mask that boxes with whole coordinates paint."""
    mask = np.zeros((side, side), bool)
    for x1, y1, x2, y2 in boxes.astype(int):
        mask[y1:y2, x1:x2] = True
    return mask


def test_the_areas_of_regions_are_those_of_painted_masks() -> None:
    rng = np.random.default_rng(0)
    overlapping = 0
    for _ in range(200):
        a, b = (
            np.sort(rng.integers(0, 12, (n, 2, 2)), axis=1).reshape(n, 4).astype(float) for n in rng.integers(0, 6, 2)
        )
        masks = pixels(a, 12), pixels(b, 12)
        assert region_areas(a, b) == ((masks[0] & masks[1]).sum(), (masks[0] | masks[1]).sum())
        overlapping += bool((masks[0] & masks[1]).any())
    assert overlapping > 50
    one, other = np.array([[1.5, 2, 4, 8]]), np.array([[2, 3.25, 9, 7]])
    both, either = region_areas(one, other)
    assert both / either == pytest.approx(iou(one, other)[0, 0])
    assert region_areas(np.array([[5.0, 5, 1, 1], [np.nan, 0, 9, 9]]), np.zeros((0, 4))) == (0, 0)


def scored(*cases: tuple[Sample, Reply]) -> list[Sample]:
    samples = []
    for s, r in cases:
        values = {name: f(s, r) for name, f in detection.items()}
        scores = {name: value for name, value in values.items() if value is not None}
        samples.append(Sample(s.uid, s.prompt, (reply(r.text, scores=scores),), s.truth))
    return samples


def box_of(width: float, height: float) -> dict[str, Any]:
    return {"bbox_2d": [0, 0, width, height]}


def test_giou_ciou_and_n_acc() -> None:
    """Of the evaluation of gRefCOCO: intersection over union 90/100, a correct rejection, 40 pixels where there is
    nothing, and 60 missed ones: gIoU (0.9 + 1 + 0 + 0) / 4, cIoU 90 / (100 + 0 + 40 + 60)."""
    cases = [
        (sample(box_of(10, 10)), label_reply(box_of(10, 9))),
        (sample(), label_reply()),
        (sample(), label_reply(box_of(10, 4))),
        (sample(box_of(10, 6)), label_reply()),
    ]
    summary = detection_summary(scored(*cases))
    assert summary["giou"] == pytest.approx(47.5)
    assert summary["ciou"] == pytest.approx(45)
    assert summary["n_acc"] == pytest.approx(50)
    only_targets = detection_summary(scored(cases[0], (sample(box_of(10, 5)), label_reply(box_of(1, 5)))))
    assert only_targets["giou"] == pytest.approx(100 * (0.9 + 0.1) / 2)
    assert only_targets["ciou"] == pytest.approx(100 * 95 / 150)
    assert "n_acc" not in only_targets
    only_rejected = detection_summary(scored(cases[1]))
    assert (only_rejected["giou"], only_rejected["n_acc"]) == (100, 100)
    assert "ciou" not in only_rejected


def test_what_counts_as_a_rejection() -> None:
    """An answer that cannot be parsed is none, unlike in the released evaluation, nor is one without a usable box."""
    for r in (reply("?"), label_reply({"bbox_2d": "none"}), label_reply(A, thought=None)):
        assert detection["region_iou"](sample(), r) == 0
    missed = reply("?")
    assert detection["region_iou"](sample(A), missed) == 0
    assert (detection["intersection"](sample(A), missed), detection["union"](sample(A), missed)) == (0, 1600)


def test_regions_are_unions_of_boxes_within_the_image_in_the_pixels_of_the_truth() -> None:
    twice = label_reply(A, A, {"bbox_2d": [30, 20, 50, 60]})
    assert detection["region_iou"](sample(A), twice) == 1
    beyond = label_reply({"bbox_2d": [800, 800, 900, 2000]})
    assert detection["union"](sample(), beyond) == 40**2
    half = {"bbox_2d": [5, 10, 25, 30]}
    s = sample(A, frame=CoordinateFrame(420, 420))
    assert detection["intersection"](s, label_reply(half)) == detection["union"](s, label_reply(half)) == 40 * 40


def test_matching_is_the_best_of_all_pairings() -> None:
    rng = np.random.default_rng(0)
    for rows, columns in ((2, 3), (3, 3), (4, 2)):
        boxes = [np.sort(rng.uniform(0, 100, (n, 2, 2)), axis=1).reshape(n, 4) for n in (rows, columns)]
        sides = [Objects(b, (b[:, :2] + b[:, 2:]) / 2) for b in boxes]
        scores = pair_scores(*sides, frame=(840, 840)) + rng.uniform(0, 1, (rows, columns))
        wide = scores if rows <= columns else scores.T
        brute = max(sum(wide[i, j] for i, j in enumerate(p)) for p in permutations(range(wide.shape[1]), wide.shape[0]))
        assert best_total(scores) == pytest.approx(brute)


def test_summary_counts_boxes_over_all_replies() -> None:
    cases = [
        (sample(A), label_reply(A)),
        (sample(A, B), label_reply(A)),
        (sample(), label_reply(B)),
        (sample(B), reply("?")),
    ]
    summary = detection_summary(scored(*cases))  # 2 found, 1 wrong, 2 missed
    assert summary["f1"] == pytest.approx(100 * 4 / 7)
    assert summary["precision"] == pytest.approx(200 / 3)
    assert summary["recall"] == pytest.approx(50)
    assert summary["n_acc"] == 0
    assert summary["parse_failure"] == 25
    assert summary["point_hit"] == pytest.approx(50)
    assert "n_acc" not in detection_summary(scored(*cases[:2]))


@pytest.mark.slow
def test_thousands_of_replies_a_second() -> None:
    s, r = sample(A, B), label_reply(B, A)
    start = time.perf_counter()
    for _ in range(300):
        total(s, r)
    assert time.perf_counter() - start < 0.6


def test_annotations_are_image_fractions_in_any_coordinate_frame() -> None:
    s = sample({"bbox_2d": [84, 168, 420, 840], "point_2d": [210, 630]}, frame=CoordinateFrame(1000, 1000))
    r = label_reply({"bbox_2d": [100, 200, 500, 1000], "point_2d": [250, 750]}, {"bbox_2d": [1, 2], "point_2d": "x"})
    annotations = [(mark.shape, mark.at) for mark in marks(s, r)]
    assert [shape for shape, _ in annotations] == ["box", "point"]  # malformed items are left out
    assert annotations == [(mark.shape, pytest.approx(mark.at)) for mark in marks(s, None)]
    assert annotations[0][1] == pytest.approx((0.1, 0.2, 0.5, 1.0))
    assert marks(s, reply("no list")) == []
    assert marks(Sample("other", (), truth="a word"), None) == []
