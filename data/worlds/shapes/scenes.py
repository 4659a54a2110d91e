"""Rendered scenes of coloured shapes, and simple questions about them: how many, what is where, what a sum comes to.

Two looks share no shape, colour or background, and a picture may be taken from three views. Whether a scene trains,
validates or tests follows from what lies where in it, so that no two splits share one.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from PIL import Image, ImageDraw

from mmpost.data.media.media import media
from mmpost.data.sources.base import Indexed
from mmpost.errors import ConfigError
from mmpost.types import Part, Sample, Split

SIDE = 84
"""Pixels of a picture's side."""
GRID = 3
"""Cells in a row; they are numbered from 1 in reading order."""
CELLS = GRID * GRID
SIZES = ("small", "large")
MATERIALS = ("solid", "hollow")
View = Literal["front", "left", "right"]
SLANT = {"front": 0.0, "left": 0.14, "right": -0.14}
"""How far a view leans: the share of its height by which the top of a picture is moved sideways."""
COLOURS = {
    "red": (230, 40, 40), "green": (40, 200, 60), "blue": (60, 90, 255),
    "yellow": (240, 220, 40), "purple": (190, 60, 220), "white": (240, 240, 240),
}  # fmt: skip
FINE = 3
"""Pictures are drawn this much larger first, for smooth edges."""


@dataclass(frozen=True)
class Look:
    """What scenes of one domain are made of."""

    shapes: tuple[str, ...]
    colours: tuple[str, ...]
    background: tuple[int, int, int]


LOOKS = {
    "plain": Look(("circle", "square", "triangle"), ("red", "green", "blue"), (0, 0, 0)),
    "shifted": Look(("diamond", "cross", "star"), ("yellow", "purple", "white"), (70, 50, 40)),
}
"""The domain that tasks train on, and the one to which they must generalise; the base has seen both."""

ASK = "think in <think>, answer in <answer>"
"""How every prompt ends."""


@dataclass(frozen=True)
class Thing:
    """One object of a scene."""

    shape: str
    color: str
    size: str
    material: str
    position: int
    """The number of its cell."""
    nudge: tuple[int, int] = (0, 0)
    """Pixels from the middle of the cell."""

    @property
    def words(self) -> str:
        return f"{self.color} {self.shape}"

    @property
    def all_words(self) -> str:
        return f"{self.size} {self.color} {self.material} {self.shape}"


def place(rng: random.Random, look: Look, n: int, materials: Sequence[str] = MATERIALS[:1]) -> list[Thing]:
    """`n` different objects in reading order, each in a cell of its own."""
    cells = sorted(rng.sample(range(1, CELLS + 1), n))
    return [
        Thing(
            rng.choice(look.shapes),
            rng.choice(look.colours),
            rng.choice(SIZES),
            rng.choice(materials),
            cell,
            (rng.randint(-3, 3), rng.randint(-3, 3)),
        )
        for cell in cells
    ]


def held(key: object) -> Split:
    """The split of what `key` stands for: of ten, eight train, one validates, one tests."""
    tenth = int(hashlib.sha256(repr(key).encode()).hexdigest()[:8], 16) % 10
    return "train" if tenth < 8 else "val" if tenth == 8 else "test"


def split_of(things: Sequence[Thing]) -> Split:
    """The split of a scene: by what lies in which cell, whatever the pixels."""
    return held(sorted((t.position, t.all_words) for t in things))


def _outline(thing: Thing) -> tuple[list[tuple[float, float]], float]:
    """Corners in pixels of the drawing, around the middle of the object, and its radius; none for a circle."""
    r = FINE * (10.5 if thing.size == "large" else 7.0)
    if thing.shape == "circle":
        return [], r
    if thing.shape == "cross":
        a = r * 0.36
        arm = [(-a, -r), (a, -r), (a, -a), (r, -a), (r, a), (a, a)]
        return [*arm, *((-x, -y) for x, y in arm)], r
    turns = {
        "square": [(0.25 + 0.5 * k, 1.15) for k in range(4)],
        "diamond": [(0.5 * k, 1.2 if k % 2 else 0.8) for k in range(4)],
        "triangle": [(-0.5 + 2 / 3 * k, 1.15) for k in range(3)],
        "star": [(-0.5 + 0.2 * k, 0.45 if k % 2 else 1.15) for k in range(10)],
    }[thing.shape]
    return [(r * far * math.cos(t * math.pi), r * far * math.sin(t * math.pi)) for t, far in turns], r


def draw(things: Sequence[Thing], look: Look, view: View = "front") -> Image.Image:
    """The scene as a square of SIDE pixels, RGB."""
    full, cell = SIDE * FINE, SIDE * FINE / GRID
    canvas = Image.new("RGB", (full, full), look.background)
    pen = ImageDraw.Draw(canvas)
    for thing in things:
        row, column = divmod(thing.position - 1, GRID)
        x = (column + 0.5) * cell + FINE * thing.nudge[0]
        y = (row + 0.5) * cell + FINE * thing.nudge[1]
        corners, r = _outline(thing)
        scales = (1.0,) if thing.material == "solid" else (1.0, 0.55)
        for scale, colour in zip(scales, (COLOURS[thing.color], look.background), strict=False):
            if corners:
                pen.polygon([(x + scale * a, y + scale * b) for a, b in corners], fill=colour)
            else:
                pen.ellipse((x - scale * r, y - scale * r, x + scale * r, y + scale * r), fill=colour)
    if SLANT[view]:
        lean = SLANT[view]
        matrix = (1.0, lean, -lean * full / 2, 0.0, 1.0, 0.0)
        canvas = canvas.transform(
            canvas.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=look.background
        )
    return canvas.reduce(FINE)


def picture(things: Sequence[Thing], look: Look, view: View = "front") -> Part:
    """The drawing as a part of a prompt."""
    return Part("image", media(draw(things, look, view), "image"))


PLURAL = {"cross": "crosses"}


def plural(shape: str) -> str:
    return PLURAL.get(shape, f"{shape}s")


@dataclass(frozen=True)
class Filter:
    """Some of the objects, by colour, shape or both."""

    color: str = ""
    shape: str = ""

    def __call__(self, thing: Thing) -> bool:
        return self.color in ("", thing.color) and self.shape in ("", thing.shape)

    @property
    def words(self) -> str:
        noun = plural(self.shape) if self.shape else "objects"
        return f"{self.color} {noun}".strip()


def some(rng: random.Random, look: Look, things: Sequence[Thing]) -> Filter:
    """A filter by colour, shape or both; mostly one that an object of the scene passes."""
    seen = rng.choice(things)
    if rng.random() < 0.15:
        seen = Thing(rng.choice(look.shapes), rng.choice(look.colours), "small", "solid", 1)
    return rng.choice((Filter(seen.color), Filter(shape=seen.shape), Filter(seen.color, seen.shape)))


def look_of(name: str) -> Look:
    if name not in LOOKS:
        raise ConfigError(f"look: wanted one of {', '.join(LOOKS)}, found {name!r}; choose one of them.")
    return LOOKS[name]


class Drawn(Indexed):
    """`n` samples made from random numbers; sample i depends on the arguments and i alone."""

    seed_prefix: ClassVar[str]
    """Seeds every sample of the source: changing it changes the data."""

    def __init__(self, split: Split, n: int, seed: int) -> None:
        if split not in ("train", "val", "test"):
            raise ConfigError(f"split must be train, val or test; found {split!r}; choose one of them.")
        self.split: Split = split
        self.n, self.seed = n, seed

    def __len__(self) -> int:
        return self.n

    def rng(self, index: int) -> random.Random:
        """Random numbers of sample `index`."""
        return random.Random(f"{self.seed_prefix} {self.split} {self.seed} {index}")

    def uid(self, index: int) -> str:
        """The name of sample `index`."""
        return f"{self.seed_prefix.lower()}-{self.split}-{self.seed}-{index}"

    def scene(self, make: Callable[[], list[Thing]]) -> list[Thing]:
        """The first scene from `make` that belongs to the split."""
        while True:
            things = make()
            if split_of(things) == self.split:
                return things


class Shapes(Drawn):
    """Questions that a base should be able to answer; kinds and looks take turns.

    "name": all objects of a picture with their cells; "second": those of one of two pictures; "count": how many of
    some; "sum": a sum, difference or product of numbers, without a picture. The truth is the answer's text, and
    `meta["cot"]` the one fact that it rests on.
    """

    KINDS = ("name", "second", "count", "sum")
    seed_prefix = "Shapes"

    def __init__(
        self,
        split: Split = "train",
        kinds: Sequence[str] = KINDS,
        looks: Sequence[str] = tuple(LOOKS),
        n: int = 1000,
        seed: int = 0,
    ) -> None:
        """`kinds` take turns; repeat one to see more of it. Raises ConfigError for one that is unknown."""
        super().__init__(split, n, seed)
        unknown = sorted(set(kinds) - set(self.KINDS))
        if unknown or not kinds:
            raise ConfigError(f"kinds must be some of {', '.join(self.KINDS)}; found {unknown or 'none'}; name those.")
        self.kinds, self.looks = tuple(kinds), [look_of(name) for name in looks]

    def sample(self, index: int) -> Sample:
        kind = self.kinds[index % len(self.kinds)]
        rng = self.rng(index)
        make = {"count": _count, "name": _name, "second": _second, "sum": _sum}[kind]
        pictures, question, answer, fact = make(self, rng, rng.choice(self.looks))
        meta = {"kind": kind, "cot": fact}
        return Sample(self.uid(index), (*pictures, Part("text", f"{question} {ASK}")), truth=answer, meta=meta)


Asked = tuple[list[Part], str, str, str]
"""Pictures, question, answer, and the one fact that it rests on, as thoughts write it."""


def _count(shapes: Shapes, rng: random.Random, look: Look) -> Asked:
    things = shapes.scene(lambda: place(rng, look, rng.randint(2, 7)))
    wanted = Filter() if rng.random() < 0.25 else some(rng, look, things)
    many = str(sum(map(wanted, things)))
    return [picture(things, look)], f"how many {wanted.words}?", many, f"{wanted.words}={many}"


def _name(shapes: Shapes, rng: random.Random, look: Look) -> Asked:
    things = shapes.scene(lambda: place(rng, look, rng.randint(1, 6)))
    return [picture(things, look, _view(rng))], "name the objects.", names(things), "look"


def _second(shapes: Shapes, rng: random.Random, look: Look) -> Asked:
    scenes = [shapes.scene(lambda: place(rng, look, rng.randint(1, 3))) for _ in range(2)]
    which = rng.randrange(2)
    pictures = [picture(scenes[0], look), picture(scenes[1], look, _view(rng))]
    return pictures, f"name the objects of picture {which + 1}.", names(scenes[which]), "look"


def _sum(shapes: Shapes, rng: random.Random, look: Look) -> Asked:
    sign = rng.choice("+-*")
    a, b = rng.randint(0, 9), rng.randint(0, 9)
    if sign == "-":
        a, b = max(a, b), min(a, b)
    comes = str({"+": a + b, "-": a - b, "*": a * b}[sign])
    return [], f"what is {a}{sign}{b}?", comes, f"{a}{sign}{b}={comes}"


def _view(rng: random.Random) -> View:
    return rng.choice(("front", "front", "left", "right"))


def names(things: Sequence[Thing], everything: bool = False) -> str:
    """All objects, each with its cell, by colour and shape or by `everything`."""
    return ";".join(f"{t.position} {t.all_words if everything else t.words}" for t in things)
