"""Scenes of digits: determinism, correct labels, disjoint splits."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from mmpost.data.worlds.digits.scenes import (
    QUESTION_TYPES,
    Digit,
    Scenes,
    Split,
    _by_value,
    answer_text,
    listing_thought,
    render,
)
from mmpost.errors import ConfigError
from mmpost.types import CoordinateFrame, Sample

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def test_splits_share_no_scan_and_cover_all_scans() -> None:
    scans = {split: {i for value in _by_value(split) for i in value} for split in SPLITS}
    assert not scans["train"] & scans["val"]
    assert not (scans["train"] | scans["val"]) & scans["test"]
    assert sum(map(len, scans.values())) == 1797
    assert all(len(value) >= 10 for split in SPLITS for value in _by_value(split))


def test_an_index_always_gives_the_same_sample() -> None:
    a, b = (Scenes("train", QUESTION_TYPES, n=30, seed=3) for _ in range(2))
    backwards = [b[i] for i in reversed(range(30))][::-1]
    assert list(a) == backwards
    assert [a[-1], *a[2:4]] == [a[29], a[2], a[3]]
    assert len({s.uid for s in a}) == 30
    other = Scenes("train", QUESTION_TYPES, n=30, seed=4)
    assert all(x.truth != y.truth or not x.truth["boxes"] for x, y in zip(a, other, strict=True))
    with pytest.raises(IndexError):
        a[30]


def center(digit: Digit, axis: int) -> float:
    return digit.center[axis]


@pytest.mark.parametrize("question_type", QUESTION_TYPES)
def test_answers_are_correct(question_type: str) -> None:
    scenes = Scenes("train", (question_type,), n=60, none=0.2)
    empty = 0
    for i in range(60):
        digits, question, answer = scenes.scene(i)
        empty += not answer
        match = re.search(r"\d", question)
        value = int(match[0]) if match else None
        with_value = [d for d in digits if d.value == value]
        if question_type == "single":
            expected = with_value
            assert len(with_value) <= 1
        elif question_type == "all":
            expected = with_value
        elif question_type == "others":
            expected = [d for d in digits if d.value != value]
        elif question_type in ("largest", "smallest"):
            expected = sorted(digits, key=lambda d: d.height, reverse=question_type == "largest")[:1]
        elif question_type.startswith("any:"):
            pick, axis = {"leftmost": (min, 0), "rightmost": (max, 0), "top": (min, 1), "bottom": (max, 1)}[
                question_type.removeprefix("any:")
            ]
            expected = [pick(digits, key=lambda d: center(d, axis))]
            boxes = [one["boxes"][0] for one in scenes[i].truth["alternatives"]]
            assert sorted(boxes) == sorted(d.box for d in digits)
            assert scenes[i].truth["boxes"] == [expected[0].box]
            assert len(boxes) > 1
        elif question_type == "group":
            assert all(region.box == _hull(digits) for region in answer)
            expected = answer if digits else []
        elif question_type in ("leftmost", "rightmost", "last from the left"):
            expected = sorted(digits, key=lambda d: center(d, 0), reverse=question_type != "leftmost")[:1]
        elif question_type in ("top", "bottom", "last from the top"):
            expected = sorted(digits, key=lambda d: center(d, 1), reverse=question_type != "top")[:1]
        else:
            axis, sign = {"left": (0, -1), "right": (0, 1), "above": (1, -1), "below": (1, 1)}[question_type]
            expected = [d for d in digits for a in with_value if sign * (center(d, axis) - center(a, axis)) > 0]
        assert answer == expected
    assert empty == 0 if question_type.startswith("any:") else 0 < empty < 40


def _hull(digits: list[Digit]) -> list[int]:
    """The box around all digits."""
    corners = np.array([d.box for d in digits])
    return [*corners[:, :2].min(0).tolist(), *corners[:, 2:].max(0).tolist()]


def test_boxes_are_tight_disjoint_and_inside_the_canvas() -> None:
    scenes = Scenes("test", ("all",), n=40, count=(3, 4))
    for i in range(40):
        digits, _, _ = scenes.scene(i)
        image = np.array(render(digits, 84).convert("L"))
        covered = np.zeros_like(image, dtype=int)
        for d in digits:
            x1, y1, x2, y2 = d.box
            assert 0 <= x1 < x2 <= 84
            assert 0 <= y1 < y2 <= 84
            covered[y1:y2, x1:x2] += 1
            ink = image[y1:y2, x1:x2] > 25
            assert all(edge.any() for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1]))
        assert covered.max() == 1
        assert not image[covered == 0].any()


def test_labels_follow_the_example_format_in_the_frame_of_the_model() -> None:
    sample = Scenes("train", ("single",), n=1, none=0)[0]
    items = json.loads(re.sub("</?answer>", "", answer_text(sample.truth)))
    assert [i["bbox_2d"] for i in items] == sample.truth["boxes"]
    assert answer_text(sample.truth) == f"<answer>{json.dumps(items)}</answer>"
    double = json.loads(re.sub("</?answer>", "", answer_text(sample.truth, CoordinateFrame(168, 84))))
    assert double[0]["bbox_2d"][0] == 2 * items[0]["bbox_2d"][0]
    assert double[0]["bbox_2d"][1] == items[0]["bbox_2d"][1]
    assert json.dumps(items) in answer_text(sample.truth, thought=listing_thought(sample))
    assert sample.prompt[0].modality == "image"
    assert sample.meta["question"] in sample.prompt[1].value


def test_the_listing_thought_has_every_digit_in_the_frame_of_the_model() -> None:
    sample = Sample(
        "a",
        (),
        truth={"frame": [84, 84]},
        meta={"digits": [3, 7], "centers": [[60, 10], [12, 40]]},
        frame=CoordinateFrame(168, 84),
    )
    assert listing_thought(sample) == " 7, 24, 40 3, 120, 10"
    assert listing_thought(replace(sample, frame=None)) == " 7, 12, 40 3, 60, 10"
    assert listing_thought(replace(sample, meta={"digits": [], "centers": []})) == " none"
    drawn = Scenes("train", ("single",), n=1, none=0)[0]
    digits = [(int(v), int(x), int(y)) for v, x, y in re.findall(r" (\d+), (\d+), (\d+)", listing_thought(drawn))]
    assert sorted(value for value, _, _ in digits) == sorted(drawn.meta["digits"])
    assert {tuple(p) for p in drawn.truth["points"]} <= {(x, y) for _, x, y in digits}


def test_unknown_question_types_and_impossible_scenes_are_refused() -> None:
    with pytest.raises(ConfigError, match="leftist"):
        Scenes("train", ("single", "leftist"))
    with pytest.raises(ConfigError, match="none"):
        Scenes("train", ())
    with pytest.raises(ConfigError, match="room"):
        Scenes("train", ("all",), count=(9, 9), heights=(40, 40)).scene(0)
