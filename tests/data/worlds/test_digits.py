"""Scenes of digits: the same index always gives the same sample, the label is right, splits share no scan."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from mmpost.data.worlds.digits.scenes import (
    QUESTION_TYPES,
    Digit,
    Scenes,
    Split,
    _by_value,
    answer_text,
    location_thought,
    render,
)
from mmpost.errors import ConfigError
from mmpost.types import CoordinateFrame

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def test_splits_share_no_scan_and_cover_all() -> None:
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


@pytest.mark.parametrize("kind", QUESTION_TYPES)
def test_the_answer_is_what_the_question_asks(kind: str) -> None:
    scenes = Scenes("train", (kind,), n=60, none=0.2)
    empty = 0
    for i in range(60):
        digits, question, answer = scenes.scene(i)
        empty += not answer
        found = re.search(r"\d", question)
        value = int(found[0]) if found else None
        same = [d for d in digits if d.value == value]
        if kind == "single":
            right = same
            assert len(same) <= 1
        elif kind == "all":
            right = same
        elif kind == "others":
            right = [d for d in digits if d.value != value]
        elif kind in ("largest", "smallest"):
            right = sorted(digits, key=lambda d: d.height, reverse=kind == "largest")[:1]
        elif kind in ("leftmost", "rightmost", "last from the left"):
            right = sorted(digits, key=lambda d: center(d, 0), reverse=kind != "leftmost")[:1]
        elif kind in ("top", "bottom", "last from the top"):
            right = sorted(digits, key=lambda d: center(d, 1), reverse=kind != "top")[:1]
        else:
            axis, sign = {"left": (0, -1), "right": (0, 1), "above": (1, -1), "below": (1, 1)}[kind]
            right = [d for d in digits for a in same if sign * (center(d, axis) - center(a, axis)) > 0]
        assert answer == right
    assert 0 < empty < 40


def test_boxes_lie_on_the_canvas_around_ink_and_apart() -> None:
    scenes = Scenes("test", ("all",), n=40, count=(3, 4))
    for i in range(40):
        digits, _, _ = scenes.scene(i)
        picture = np.array(render(digits, 84).convert("L"))
        covered = np.zeros_like(picture, dtype=int)
        for d in digits:
            x1, y1, x2, y2 = d.box
            assert 0 <= x1 < x2 <= 84
            assert 0 <= y1 < y2 <= 84
            covered[y1:y2, x1:x2] += 1
            ink = picture[y1:y2, x1:x2] > 25
            assert all(edge.any() for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1]))
        assert covered.max() == 1
        assert not picture[covered == 0].any()


def test_the_label_is_written_as_the_example_and_in_the_frame_of_the_model() -> None:
    sample = Scenes("train", ("single",), n=1, none=0)[0]
    items = json.loads(re.sub("</?answer>", "", answer_text(sample.truth)))
    assert [i["bbox_2d"] for i in items] == sample.truth["boxes"]
    assert answer_text(sample.truth) == f"<answer>{json.dumps(items)}</answer>"
    double = json.loads(re.sub("</?answer>", "", answer_text(sample.truth, CoordinateFrame(168, 84))))
    assert double[0]["bbox_2d"][0] == 2 * items[0]["bbox_2d"][0]
    assert double[0]["bbox_2d"][1] == items[0]["bbox_2d"][1]
    assert json.dumps(items) in answer_text(sample.truth, thought=location_thought(sample.truth))
    assert sample.prompt[0].modality == "image"
    assert sample.meta["question"] in sample.prompt[1].value


def test_thoughts_say_where_the_points_are() -> None:
    truth = {"boxes": [], "points": [[5, 5], [80, 42]], "frame": [84, 84]}
    assert location_thought(truth) == "top left, middle right"
    assert location_thought({**truth, "points": []}) == "none"


def test_unknown_kinds_and_impossible_scenes_are_refused() -> None:
    with pytest.raises(ConfigError, match="leftist"):
        Scenes("train", ("single", "leftist"))
    with pytest.raises(ConfigError, match="none"):
        Scenes("train", ())
    with pytest.raises(ConfigError, match="room"):
        Scenes("train", ("all",), count=(9, 9), heights=(40, 40)).scene(0)
