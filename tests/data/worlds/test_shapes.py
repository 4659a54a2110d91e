"""Scenes of shapes: determinism, correct answers, disjoint splits."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from mmpost.data.worlds.shapes.counting import QUESTION_TYPES, Counting
from mmpost.data.worlds.shapes.figures import UNIT, Figures
from mmpost.data.worlds.shapes.scenes import (
    COLOURS,
    LOOKS,
    Filter,
    Look,
    Shapes,
    Thing,
    names,
    place,
    plural,
    render,
    split_of,
)
from mmpost.data.worlds.shapes.transformation import ATTRIBUTES, Transformation
from mmpost.errors import ConfigError
from mmpost.rewards.calls import read_calls
from mmpost.types import Sample, Split

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def sources(split: Split, seed: int = 0):
    return (
        Shapes(split, n=24, seed=seed),
        Counting(split, n=24, seed=seed),
        Counting(split, look="shifted", n=24, seed=seed),
        Transformation(split, n=24, seed=seed),
        Transformation(split, view="left", n=24, seed=seed),
        Figures(split, n=24, seed=seed),
    )


@pytest.mark.parametrize("number", range(6))
def test_an_index_always_gives_the_same_sample(number: int) -> None:
    a, b, other = (sources("train", seed)[number] for seed in (3, 3, 4))
    assert list(a) == [b[i] for i in reversed(range(24))][::-1]
    assert [s.prompt for s in a] != [s.prompt for s in other]
    assert len({s.uid for s in [*a, *other, *sources("val", 3)[number]]}) == 72
    with pytest.raises(IndexError):
        a[24]


def test_splits_share_no_scene() -> None:
    for split in SPLITS:
        assert {split_of(Counting(split, n=40).problem(i)[0]) for i in range(40)} == {split}
        both = [Transformation(split, n=40).problem(i)[:2] for i in range(40)]
        assert {split_of(scene) for pair in both for scene in pair} == {split}
    corners = [{Figures(split, n=300).sides(i)[:3] for i in range(300)} for split in SPLITS]
    assert not corners[0] & corners[1]
    assert not (corners[0] | corners[1]) & corners[2]


def test_looks_are_disjoint_and_views_differ() -> None:
    plain, shifted = LOOKS["plain"], LOOKS["shifted"]
    assert not set(plain.shapes) & set(shifted.shapes)
    assert not set(plain.colours) & set(shifted.colours)
    assert plain.background != shifted.background
    things = Counting(n=1).problem(0)[0]
    images = [np.asarray(render(things, plain, view)) for view in ("front", "left", "right")]
    assert all((a != b).any() for a, b in pairwise(images))


@pytest.mark.parametrize("look", LOOKS)
def test_every_shape_is_drawn_in_its_cell_and_colour(look: str) -> None:
    style = LOOKS[look]
    for shape in style.shapes:
        for color in style.colours:
            for size in ("small", "large"):
                thing = Thing(shape, color, size, "solid", 5)
                pixels = np.asarray(render([thing], style)).astype(int)
                ink = (abs(pixels - COLOURS[color]).sum(-1) < 30).nonzero()
                assert len(ink[0]) > (40 if size == "small" else 100)
                assert min(axis.min() for axis in ink) >= 28
                assert max(axis.max() for axis in ink) < 56
                hollow = np.asarray(render([replace(thing, material="hollow")], style)).astype(int)
                assert (hollow[42, 42] == style.background).all()
                assert (pixels[42, 42] == COLOURS[color]).all()


def count_matching(things: list[Thing], phrase: str) -> int:
    """Number of `things` that a phrase of a question refers to."""
    *color, noun = phrase.split()
    shapes = {plural(t.shape): t.shape for t in things}
    return sum(
        (not color or t.color == color[0]) and (noun == "objects" or t.shape == shapes.get(noun)) for t in things
    )


@pytest.mark.parametrize("question_type", QUESTION_TYPES)
@pytest.mark.parametrize("look", LOOKS)
def test_the_count_and_its_chain_of_thought_are_correct(question_type: str, look: str) -> None:
    problems = Counting("train", (question_type,), look, n=60)
    for i in range(60):
        things, (question, cot, answer) = problems.problem(i)
        if question_type == "addition":
            match = re.fullmatch(r"add (\d) .+\. how many objects are there\?", question)
            assert match
            assert answer == len(things) + int(match[1])
        else:
            match = re.fullmatch(r"subtract all (.+)\. how many (.+) are left\?", question)
            assert match
            removed_phrase, counted_phrase = (words.split() for words in match.groups())
            remaining = [t for t in things if not count_matching([t], " ".join(removed_phrase))]
            assert answer == count_matching(remaining, " ".join(counted_phrase))
        *facts, last = cot.split(";")
        for fact in facts:
            words, number = fact.split("=")
            assert count_matching(things, words) == int(number)
        a, sign, b, c = re.fullmatch(r"(\d+)([+-])(\d+)=(\d+)", last).groups()  # type: ignore[union-attr]
        assert int(c) == answer == int(a) + (1 if sign == "+" else -1) * int(b)
        assert problems[i].truth == str(answer)
        assert problems[i].meta["cot"] == cot


def test_base_questions_have_right_answers() -> None:
    for sample in Shapes("train", n=400, seed=9):
        question = sample.prompt[-1].value
        images = [p for p in sample.prompt if p.modality == "image"]
        question_type, truth = sample.meta["kind"], str(sample.truth)
        assert sample.meta["cot"].endswith(f"={truth}") or sample.meta["cot"] == "look"
        if question_type == "sum":
            a, sign, b = re.search(r"(\d)([-+*])(\d)", question).groups()  # type: ignore[union-attr]
            assert int(truth) == {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign]
            assert not images
        elif question_type in ("name", "second"):
            assert len(images) == 1 + (question_type == "second")
            assert re.fullmatch(r"(\d \w+ \w+;?){1,6}", truth)
        else:
            assert 0 <= int(truth) <= 7
    assert {s.meta["kind"] for s in Shapes(n=8)} == set(Shapes.QUESTION_TYPES)


def test_filters() -> None:
    things = [Thing("circle", "red", "small", "solid", 1), Thing("square", "red", "large", "solid", 4)]
    counts = [sum(map(f, things)) for f in (Filter(), Filter("red"), Filter(shape="square"), Filter("blue", "square"))]
    assert counts == [2, 2, 1, 0]
    assert Filter("red").phrase == "red objects"
    assert Filter("white", "cross").phrase == "white crosses"
    assert names(things) == "1 red circle;4 red square"
    assert names(things, full=True) == "1 small red solid circle;4 large red solid square"


def apply_calls(before: list[Thing], sample: Sample) -> list[Thing]:
    """The objects of the first image, edited by the calls of the truth."""
    after = list(before)
    for function, number, value in read_calls(str(sample.truth)):
        attribute = function.removeprefix("change_")
        assert attribute in ATTRIBUTES
        new = int(value) if attribute == "position" else value
        assert getattr(after[int(number) - 1], attribute) != new
        after[int(number) - 1] = replace(after[int(number) - 1], **{attribute: new})
    return after


@pytest.mark.parametrize("attributes", [ATTRIBUTES, ("color", "shape", "position")])
def test_the_calls_transform_before_into_after(attributes: tuple[str, ...]) -> None:
    source = Transformation("train", attributes, n=80)
    full = "size" in attributes
    edited_attributes = set()
    for i in range(80):
        before, after, edits = source.problem(i)
        sample = source[i]
        assert apply_calls(before, sample) == after
        assert len({t.position for t in after}) == len(after)
        assert 1 <= len(edits) <= 2
        assert len([p for p in sample.prompt if p.modality == "image"]) == 2
        assert f"1:{names(before[:1], full)}" in sample.prompt[-1].value
        assert f"1:{names(after[:1], full)}" in sample.meta["cot"]
        edited_attributes |= {attribute for attribute, _, _ in edits}
    assert edited_attributes == set(attributes)
    assert {a for i in range(20) for a, _, _ in Transformation(attributes=("color",)).problem(i)[2]} == {"color"}


def test_figures_have_the_requested_sides() -> None:
    for look in LOOKS:
        source = Figures("train", ("area", "perimeter", "width", "height"), (look,), n=40)
        for i in range(40):
            w, h, (x, y), _, _ = source.sides(i)
            pixels = np.asarray(source[i].prompt[0].value.open())
            ink = (pixels != LOOKS[look].background).any(-1).nonzero()
            assert (ink[1].min(), ink[0].min()) == (x, y)
            assert (ink[1].max() - x + 3, ink[0].max() - y + 3) == (w * UNIT, h * UNIT)
            expected = (w * h, 2 * (w + h), w, h)[i % 4]
            assert int(str(source[i].truth)) == expected
            assert source[i].meta["cot"].endswith(f"={expected}")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Shapes(question_types=("counts",)),
        lambda: Shapes(question_types=()),
        lambda: Shapes(looks=("dark",)),
        lambda: Counting(question_types=("division",)),
        lambda: Counting(look="dark"),
        lambda: Transformation(attributes=("weight",)),
        lambda: Figures(question_types=("volume",)),
        lambda: Figures("dev"),  # type: ignore[arg-type]
    ],
)
def test_unknown_options_are_refused(make) -> None:
    with pytest.raises(ConfigError, match=r"one of|some of|must be"):
        make()


def test_placed_objects_use_the_shapes_and_colours_of_the_look() -> None:
    import random

    look = Look(("circle",), ("red",), (0, 0, 0))
    things = place(random.Random(0), look, 9)
    assert [t.position for t in things] == list(range(1, 10))
    assert {(t.shape, t.color) for t in things} == {("circle", "red")}
