"""Questions of eight types about drawn aerial scenes: houses, vehicles, courts, ponds, fields, whole places.

A scene is a square of cells with at most one thing in each; it can be drawn at any size, and shows the same things.
Train, val and test never share a layout: a hash of it says to which split it belongs.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mmpost.data.media.media import media
from mmpost.data.sources.curriculum import Typed
from mmpost.data.worlds.aerial.drawing import COLORS, picture
from mmpost.errors import ConfigError
from mmpost.types import Part, Sample, Split

TYPES = ("color", "shape", "size", "number", "transportation", "sports", "location", "scene")
"""The types of question of HRVQA but for areas and yes/no."""

SHAPES = ("round", "square", "triangle", "long")
SIZES = ("small", "medium", "large")
VEHICLES = ("car", "bus", "train", "plane", "boat")
SPORTS = ("tennis", "soccer", "baseball", "basketball", "running")
PLACES = ("farm", "village", "harbor", "forest", "airport", "city")

TENTHS: dict[str, range] = {"train": range(8), "val": range(8, 9), "test": range(9, 10)}


@dataclass(frozen=True)
class Thing:
    """What lies in one cell; what a kind does not have (the color of a tree) is empty."""

    kind: str
    row: int
    column: int
    color: str = ""
    shape: str = ""
    size: str = ""


class Scene(NamedTuple):
    """What is there, and what is asked about it."""

    things: tuple[Thing, ...]
    question: str
    answer: str


def prompt_text(question: str) -> str:
    """The instruction that follows the picture."""
    return f"{question} think in <think>, answer in <answer>"


class Aerial(Typed):
    """`n` questions, types in turn; sample i depends on the arguments and i alone, drawn on demand.

    The truth is the answer: a word or two, or a number. `meta` holds the type of the question as `task`. Raises
    ConfigError for a type or split that is unknown.
    """

    def __init__(
        self,
        split: Split = "train",
        types: Sequence[str] = TYPES,
        n: int = 1000,
        seed: int = 0,
        size: int = 112,
        cells: int = 4,
    ) -> None:
        """`types` take turns (repeat one to see more of it); the picture has `cells` x `cells` in `size` pixels."""
        unknown = sorted(set(types) - set(TYPES))
        if unknown or not types:
            raise ConfigError(
                f"types of question must be some of {', '.join(TYPES)}; found {', '.join(unknown) or 'none'}; "
                "name only those."
            )
        if split not in TENTHS:
            raise ConfigError(f"split must be train, val or test; found {split!r}; choose one of them.")
        if cells < 4 or size < 4 * cells:
            raise ConfigError(f"a scene wants at least 4 cells of 4 pixels a side, found {cells} in {size} pixels.")
        self.split: Split = split
        self.types, self.n, self.seed, self.size, self.cells = tuple(types), n, seed, size, cells

    def __len__(self) -> int:
        return self.n

    def type_of(self, index: int) -> str:
        """The type of question of sample `index`, without drawing it."""
        return self.types[index % len(self.types)]

    def sample(self, index: int) -> Sample:
        kind = self.type_of(index)
        scene = self.scene(index)
        drawn = picture(scene.things, self.cells, self.size, random.Random(f"draw {self.split} {self.seed} {index}"))
        return Sample(
            uid=f"aerial-{self.split}-{self.seed}-{index}-{kind}",
            prompt=(Part("image", media(drawn, "image")), Part("text", prompt_text(scene.question))),
            truth=scene.answer,
            meta={"task": kind, "question": scene.question},
        )

    def scene(self, index: int) -> Scene:
        """The layout and the question of sample `index`, without drawing it."""
        kind = self.type_of(index)
        rng = random.Random(f"{kind} {self.split} {self.seed} {index}")
        while True:
            scene = _MAKERS[kind](rng, self.cells)
            if _tenth(scene) in TENTHS[self.split]:
                return scene


def _tenth(scene: Scene) -> int:
    # The key is spelled out rather than taken from `repr(thing)`: renaming the class or a field must not move scenes
    # from one split to another.
    keys = [
        f"Thing(kind={t.kind!r}, row={t.row!r}, column={t.column!r}, color={t.color!r}, shape={t.shape!r}, "
        f"size={t.size!r})"
        for t in scene.things
    ]
    return hashlib.sha256(repr(sorted(keys)).encode()).digest()[0] * 10 // 256


class _Land:
    """Free cells of a scene in the making."""

    def __init__(self, rng: random.Random, cells: int) -> None:
        self.rng, self.cells = rng, cells
        self.free = [(row, column) for row in range(cells) for column in range(cells)]
        rng.shuffle(self.free)
        # Roads run between cells, where nothing stands.
        ways = [Thing("road", rng.randint(1, cells - 1), 0, shape="across"),
                Thing("road", 0, rng.randint(1, cells - 1), shape="down")]  # fmt: skip
        self.things: list[Thing] = [way for way in ways if rng.random() < 0.4]

    def put(self, kind: str, **looks: str) -> Thing:
        """A thing of `kind` in some free cell, with looks drawn where the kind has them and none are given."""
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

    def some(self, kinds: Sequence[str], low: int, high: int) -> None:
        """Between `low` and `high` things of these kinds."""
        for _ in range(self.rng.randint(low, high)):
            self.put(self.rng.choice(kinds))

    def asked(self, question: str, answer: str) -> Scene:
        return Scene(tuple(self.things), question, answer)


def _others(*kinds: str) -> list[str]:
    """What may stand around without giving the answer away, or a second one."""
    return [k for k in ("tree", "tree", "house", "pond", "field", "car") if k not in kinds]


def _color(rng: random.Random, cells: int) -> Scene:
    land, kind = _Land(rng, cells), rng.choice(("house", "car"))
    thing = land.put(kind)
    land.some(_others("house", "car"), 1, 4)
    return land.asked(f"what color is the {kind}?", thing.color)


def _shape(rng: random.Random, cells: int) -> Scene:
    land, kind = _Land(rng, cells), rng.choice(("pond", "field"))
    thing = land.put(kind, size=rng.choice(SIZES[1:]))
    land.some(_others("pond", "field"), 1, 4)
    return land.asked(f"what shape is the {kind}?", thing.shape)


def _size(rng: random.Random, cells: int) -> Scene:
    land, kind = _Land(rng, cells), rng.choice(("pond", "house"))
    thing = land.put(kind)
    land.some(_others("pond", "house", "field"), 1, 4)
    return land.asked(f"how large is the {kind}?", thing.size)


def _number(rng: random.Random, cells: int) -> Scene:
    land, kind = _Land(rng, cells), rng.choice(("house", "tree", "car"))
    many = rng.randint(1, 5)
    for _ in range(many):
        land.put(kind)
    land.some(_others(kind), 0, 3)
    return land.asked(f"how many {kind}s are there?", str(many))


def _transportation(rng: random.Random, cells: int) -> Scene:
    land, kind = _Land(rng, cells), rng.choice(VEHICLES)
    land.put(kind)
    land.some(_others("car"), 1, 4)
    return land.asked("what vehicle is there?", kind)


def _sports(rng: random.Random, cells: int) -> Scene:
    land, kind = _Land(rng, cells), rng.choice(SPORTS)
    land.put(kind)
    land.some(_others(), 1, 4)
    return land.asked("what sport is played here?", kind)


def _location(rng: random.Random, cells: int) -> Scene:
    land, kind = _Land(rng, cells), rng.choice(("house", "pond", "car"))
    thing = land.put(kind)
    if cells % 2 and cells // 2 in (thing.row, thing.column):
        return _location(rng, cells)  # on the line between two sides
    land.some(_others(kind), 1, 4)
    sides = ("top" if thing.row < cells / 2 else "bottom", "left" if thing.column < cells / 2 else "right")
    return land.asked(f"where is the {kind}?", " ".join(sides))


_INHABITANTS: dict[str, tuple[tuple[str, int, int], ...]] = {
    "farm": (("field", 4, 7), ("house", 1, 1), ("tree", 0, 3)),
    "village": (("house", 4, 7), ("tree", 1, 4), ("car", 0, 1)),
    "harbor": (("sea", 5, 8), ("boat", 2, 4), ("house", 0, 2)),
    "forest": (("tree", 8, 12), ("pond", 0, 1)),
    "airport": (("runway", 3, 5), ("plane", 2, 3), ("house", 0, 1)),
    "city": (("block", 6, 9), ("car", 1, 3), ("bus", 0, 1)),
}
"""Kind, fewest and most of it."""


def _scene(rng: random.Random, cells: int) -> Scene:
    land, place = _Land(rng, cells), rng.choice(PLACES)
    for kind, low, high in _INHABITANTS[place]:
        land.some((kind,), low, high)
    return land.asked("what kind of place is this?", place)


_MAKERS: dict[str, Callable[[random.Random, int], Scene]] = dict(
    zip(TYPES, (_color, _shape, _size, _number, _transportation, _sports, _location, _scene), strict=True)
)
