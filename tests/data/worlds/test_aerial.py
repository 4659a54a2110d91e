"""Aerial scenes: determinism, correct answers, disjoint splits, and rendering at any size."""

from __future__ import annotations

import numpy as np
import pytest

from mmpost.data.worlds.aerial.questions import PLACES, SPORTS, TYPES, VEHICLES, Aerial, _tenth
from mmpost.errors import ConfigError
from mmpost.types import Split

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def test_an_index_always_gives_the_same_sample() -> None:
    a, b = (Aerial("train", n=24, seed=3) for _ in range(2))
    assert list(a) == [b[i] for i in reversed(range(24))][::-1]
    assert len({s.uid for s in a}) == 24
    assert [s.meta["task"] for s in a] == [a.question_type(i) for i in range(24)] == list(TYPES) * 3
    assert [a.scene(i) for i in range(24)] != [Aerial("train", n=24, seed=4).scene(i) for i in range(24)]


def test_splits_share_no_layout() -> None:
    tenths = {split: {_tenth(Aerial(split, n=400, seed=1).scene(i)) for i in range(400)} for split in SPLITS}
    assert tenths == {"train": set(range(8)), "val": {8}, "test": {9}}


@pytest.mark.parametrize("question_type", TYPES)
def test_answers_are_correct(question_type: str) -> None:
    source = Aerial("train", (question_type,), n=150)
    answers = set()
    for i in range(150):
        things, question, answer = source.scene(i)
        cells = [(t.row, t.column) for t in things if t.kind != "road"]
        assert len(set(cells)) == len(cells)
        answers.add(answer)
        word = question.rstrip("?").split()[-1]
        matching = [t for t in things if t.kind == word]
        if question_type in ("color", "shape", "size"):
            assert [getattr(t, question_type) for t in matching] == [answer]
        elif question_type == "number":
            word = question.split()[2].removesuffix("s")
            assert str(sum(t.kind == word for t in things)) == answer
        elif question_type in ("transportation", "sports"):
            category = VEHICLES if question_type == "transportation" else SPORTS
            assert [
                t.kind for t in things if t.kind in category and (question_type == "sports" or t.kind in category)
            ] == [answer]
        elif question_type == "location":
            (thing,) = matching
            assert answer.split() == ["top" if thing.row < 2 else "bottom", "left" if thing.column < 2 else "right"]
        else:
            assert answer in PLACES
    num_answers = {
        "color": 5,
        "shape": 4,
        "size": 3,
        "number": 5,
        "transportation": 5,
        "sports": 5,
        "location": 4,
        "scene": 6,
    }
    assert len(answers) == num_answers[question_type]


def test_a_scene_looks_the_same_at_any_size() -> None:
    small, large = (np.asarray(Aerial(n=8, size=size)[6].prompt[0].value.open(), float) for size in (112, 1024))
    assert small.shape == (112, 112, 3)
    assert large.shape == (1024, 1024, 3)
    coarse = [x.reshape(8, x.shape[0] // 8, 8, x.shape[1] // 8, 3).mean((1, 3)) for x in (small, large)]
    assert np.abs(coarse[0] - coarse[1]).mean() < 4
    assert coarse[0].std() > 4, "the image is not uniform"


def test_invalid_scene_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="areas"):
        Aerial("train", ("areas",))
    with pytest.raises(ConfigError, match="found none"):
        Aerial("train", ())
    with pytest.raises(ConfigError, match="4 cells"):
        Aerial("train", cells=2)
