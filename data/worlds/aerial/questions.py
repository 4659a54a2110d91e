"""Questions of eight types about synthetic aerial scenes with houses, vehicles, sports fields, ponds and farmland.

A scene is a square grid of cells with at most one object in each; it can be rendered at any image size. Splits share no
layout: a hash of the layout decides to which split a scene belongs.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mmpost.data.media.media import media
from mmpost.data.sources.base import GeneratedQuestions
from mmpost.data.sources.curriculum import Typed
from mmpost.data.worlds.aerial.drawing import COLORS, render
from mmpost.errors import ConfigError
from mmpost.types import Part, Sample, Split

TYPES = ("color", "shape", "size", "number", "transportation", "sports", "location", "scene")
"""The question types of HRVQA, except areas and yes/no."""

SHAPES = ("round", "square", "triangle", "long")
SIZES = ("small", "medium", "large")
VEHICLES = ("car", "bus", "train", "plane", "boat")
SPORTS = ("tennis", "soccer", "baseball", "basketball", "running")
PLACES = ("farm", "village", "harbor", "forest", "airport", "city")

TENTHS: dict[str, range] = {"train": range(8), "val": range(8, 9), "test": range(9, 10)}
"""Tenths of the hash range of layouts by split."""


@dataclass(frozen=True)
class Thing:
    """The object in one cell; attributes that do not apply to its kind (the color of a tree) are empty."""

    kind: str
    row: int
    column: int
    color: str = ""
    shape: str = ""
    size: str = ""


class Scene(NamedTuple):
    """The objects of one image, with a question about them and its answer."""

    things: tuple[Thing, ...]
    question: str
    answer: str


def prompt_text(question: str) -> str:
    """The instruction that follows the image."""
    return f"{question} think in <think>, answer in <answer>"


class Aerial(GeneratedQuestions, Typed):
    """Synthetic aerial questions whose types alternate.

    The truth is the answer: one or two words, or a number. `meta["task"]` holds the question type. Raises ConfigError
    for unknown types or splits, and for images too small to show their cells.
    """

    uid_prefix = "aerial"

    def __init__(
        self,
        split: Split = "train",
        question_types: Sequence[str] = TYPES,
        n: int = 1000,
        seed: int = 0,
        size: int = 112,
        cells: int = 4,
    ) -> None:
        """`size` is the side of the image in pixels; it shows `cells` x `cells` cells."""
        if cells < 4 or size < 4 * cells:
            raise ConfigError(f"a scene needs at least 4 cells of 4 pixels a side, found {cells} in {size} pixels.")
        super().__init__(split, n, seed, question_types, TYPES)
        self.size, self.cells = size, cells

    def generate(self, index: int) -> Sample:
        question_type = self.question_type(index)
        scene = self.scene(index)
        image = render(scene.things, self.cells, self.size, self.rng(index, "draw"))
        return Sample(
            uid=f"{self.uid(index)}-{question_type}",
            prompt=(Part("image", media(image, "image")), Part("text", prompt_text(scene.question))),
            truth=scene.answer,
            meta={"task": question_type, "question": scene.question},
        )

    def scene(self, index: int) -> Scene:
        """The layout and the question of sample `index`, without rendering the image."""
        question_type = self.question_type(index)
        rng = self.rng(index, question_type)
        while True:
            scene = _GENERATORS[question_type](rng, self.cells)
            if _tenth(scene) in TENTHS[self.split]:
                return scene


def _tenth(scene: Scene) -> int:
    # The key is spelled out rather than `repr(thing)`: renaming the class or a field must not move scenes between
    # splits.
    keys = [
        f"Thing(kind={t.kind!r}, row={t.row!r}, column={t.column!r}, color={t.color!r}, shape={t.shape!r}, "
        f"size={t.size!r})"
        for t in scene.things
    ]
    return hashlib.sha256(repr(sorted(keys)).encode()).digest()[0] * 10 // 256


class _SceneBuilder:
    """Places objects in the free cells of a new scene."""

    def __init__(self, rng: random.Random, cells: int) -> None:
        self.rng, self.cells = rng, cells
        self.free = [(row, column) for row in range(cells) for column in range(cells)]
        rng.shuffle(self.free)
        # Roads run along the borders between cells, where no object stands.
        roads = [Thing("road", rng.randint(1, cells - 1), 0, shape="across"),
                 Thing("road", 0, rng.randint(1, cells - 1), shape="down")]  # fmt: skip
        self.things: list[Thing] = [road for road in roads if rng.random() < 0.4]

    def put(self, kind: str, **looks: str) -> Thing:
        """Place an object in a free cell; attributes of its kind that `looks` does not set are sampled."""
        row, column = self.free.pop()
        if kind in ("house", "car", "block"):
            looks = {"color": self.rng.choice(COLORS), **looks}
        if kind in ("pond", "field"):
            looks = {"shape": self.rng.choice(SHAPES), **looks}
        if kind in ("house", "pond", "field"):
            looks = {"size": self.rng.choice(SIZES), **looks}
        thing = Thing(kind, row, column, **looks)
        self.things.append(thing)
        return thing

    def put_some(self, kinds: Sequence[str], low: int, high: int) -> None:
        """Place between `low` and `high` objects of these kinds."""
        for _ in range(self.rng.randint(low, high)):
            self.put(self.rng.choice(kinds))

    def ask(self, question: str, answer: str) -> Scene:
        """Finish the scene with a question about it."""
        return Scene(tuple(self.things), question, answer)


def _others(*kinds: str) -> list[str]:
    """Background objects that neither reveal the answer nor make the question ambiguous."""
    return [k for k in ("tree", "tree", "house", "pond", "field", "car") if k not in kinds]


def _color(rng: random.Random, cells: int) -> Scene:
    builder, kind = _SceneBuilder(rng, cells), rng.choice(("house", "car"))
    thing = builder.put(kind)
    builder.put_some(_others("house", "car"), 1, 4)
    return builder.ask(f"what color is the {kind}?", thing.color)


def _shape(rng: random.Random, cells: int) -> Scene:
    builder, kind = _SceneBuilder(rng, cells), rng.choice(("pond", "field"))
    thing = builder.put(kind, size=rng.choice(SIZES[1:]))
    builder.put_some(_others("pond", "field"), 1, 4)
    return builder.ask(f"what shape is the {kind}?", thing.shape)


def _size(rng: random.Random, cells: int) -> Scene:
    builder, kind = _SceneBuilder(rng, cells), rng.choice(("pond", "house"))
    thing = builder.put(kind)
    builder.put_some(_others("pond", "house", "field"), 1, 4)
    return builder.ask(f"how large is the {kind}?", thing.size)


def _number(rng: random.Random, cells: int) -> Scene:
    builder, kind = _SceneBuilder(rng, cells), rng.choice(("house", "tree", "car"))
    count = rng.randint(1, 5)
    for _ in range(count):
        builder.put(kind)
    builder.put_some(_others(kind), 0, 3)
    return builder.ask(f"how many {kind}s are there?", str(count))


def _transportation(rng: random.Random, cells: int) -> Scene:
    builder, kind = _SceneBuilder(rng, cells), rng.choice(VEHICLES)
    builder.put(kind)
    builder.put_some(_others("car"), 1, 4)
    return builder.ask("what vehicle is there?", kind)


def _sports(rng: random.Random, cells: int) -> Scene:
    builder, kind = _SceneBuilder(rng, cells), rng.choice(SPORTS)
    builder.put(kind)
    builder.put_some(_others(), 1, 4)
    return builder.ask("what sport is played here?", kind)


def _location(rng: random.Random, cells: int) -> Scene:
    builder, kind = _SceneBuilder(rng, cells), rng.choice(("house", "pond", "car"))
    thing = builder.put(kind)
    if cells % 2 and cells // 2 in (thing.row, thing.column):
        return _location(rng, cells)  # in the middle row or column, which belongs to no side
    builder.put_some(_others(kind), 1, 4)
    sides = ("top" if thing.row < cells / 2 else "bottom", "left" if thing.column < cells / 2 else "right")
    return builder.ask(f"where is the {kind}?", " ".join(sides))


_INHABITANTS: dict[str, tuple[tuple[str, int, int], ...]] = {
    "farm": (("field", 4, 7), ("house", 1, 1), ("tree", 0, 3)),
    "village": (("house", 4, 7), ("tree", 1, 4), ("car", 0, 1)),
    "harbor": (("sea", 5, 8), ("boat", 2, 4), ("house", 0, 2)),
    "forest": (("tree", 8, 12), ("pond", 0, 1)),
    "airport": (("runway", 3, 5), ("plane", 2, 3), ("house", 0, 1)),
    "city": (("block", 6, 9), ("car", 1, 3), ("bus", 0, 1)),
}
"""Objects of each place: kind, minimum and maximum number."""


def _scene(rng: random.Random, cells: int) -> Scene:
    builder, place = _SceneBuilder(rng, cells), rng.choice(PLACES)
    for kind, low, high in _INHABITANTS[place]:
        builder.put_some((kind,), low, high)
    return builder.ask("what kind of place is this?", place)


_GENERATORS: dict[str, Callable[[random.Random, int], Scene]] = dict(
    zip(TYPES, (_color, _shape, _size, _number, _transportation, _sports, _location, _scene), strict=True)
)
