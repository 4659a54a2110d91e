"""Rendered scenes of colored shapes, and basic questions about them: counts, names and positions, simple arithmetic.

Two looks share no shape, color or background, and an image may be rendered from three views. The split of a scene is a
hash of its objects and their cells, so that no two splits share a scene.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw

from mmpost.data.media.media import media
from mmpost.data.sources.base import Generated, GeneratedQuestions
from mmpost.errors import ConfigError
from mmpost.types import Part, Sample, Split

SIDE = 84
"""Side of the square image in pixels."""
GRID = 3
"""Cells per row and column; cells are numbered from 1 in reading order."""
CELLS = GRID * GRID
SIZES = ("small", "large")
MATERIALS = ("solid", "hollow")
View = Literal["front", "left", "right"]
SLANT = {"front": 0.0, "left": 0.14, "right": -0.14}
"""Horizontal shear of each view: the shift of the top edge as a fraction of the height."""
COLOURS = {
    "red": (230, 40, 40), "green": (40, 200, 60), "blue": (60, 90, 255),
    "yellow": (240, 220, 40), "purple": (190, 60, 220), "white": (240, 240, 240),
}  # fmt: skip
SUPERSAMPLING = 3
"""Factor by which scenes are rendered larger and then downsampled, for smooth edges."""


@dataclass(frozen=True)
class Look:
    """The shapes, colors and background of one visual domain."""

    shapes: tuple[str, ...]
    colours: tuple[str, ...]
    background: tuple[int, int, int]


LOOKS = {
    "plain": Look(("circle", "square", "triangle"), ("red", "green", "blue"), (0, 0, 0)),
    "shifted": Look(("diamond", "cross", "star"), ("yellow", "purple", "white"), (70, 50, 40)),
}
"""The training domain, and the shifted domain of out-of-domain evaluation; base models have seen both."""

ASK = "think in <think>, answer in <answer>"
"""Ending of every prompt."""


@dataclass(frozen=True)
class Thing:
    """One object of a scene."""

    shape: str
    color: str
    size: str
    material: str
    position: int
    """The number of the cell."""
    nudge: tuple[int, int] = (0, 0)
    """Offset from the center of the cell, in pixels."""

    @property
    def phrase(self) -> str:
        return f"{self.color} {self.shape}"

    @property
    def full_phrase(self) -> str:
        return f"{self.size} {self.color} {self.material} {self.shape}"


def place(rng: random.Random, look: Look, n: int, materials: Sequence[str] = MATERIALS[:1]) -> list[Thing]:
    """Sample `n` objects in distinct cells, in reading order."""
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


def split_by_hash(key: object) -> Split:
    """The split of `key`, by a hash of its `repr`: of ten keys, eight are train, one is val and one is test.

    Pass numbers, strings, and tuples or lists of them: their `repr` is stable.
    """
    tenth = int(hashlib.sha256(repr(key).encode()).hexdigest()[:8], 16) % 10
    return "train" if tenth < 8 else "val" if tenth == 8 else "test"


def split_of(things: Sequence[Thing]) -> Split:
    """The split of a scene, which depends on the objects and their cells but not on their offsets."""
    return split_by_hash(sorted((t.position, t.full_phrase) for t in things))


def _outline(thing: Thing) -> tuple[list[tuple[float, float]], float]:
    """Corners around the center of the object in supersampled pixels (none for a circle), and its radius."""
    r = SUPERSAMPLING * (10.5 if thing.size == "large" else 7.0)
    if thing.shape == "circle":
        return [], r
    if thing.shape == "cross":
        a = r * 0.36
        arm = [(-a, -r), (a, -r), (a, -a), (r, -a), (r, a), (a, a)]
        return [*arm, *((-x, -y) for x, y in arm)], r
    # Corners as (angle / pi, distance / radius).
    polar = {
        "square": [(0.25 + 0.5 * k, 1.15) for k in range(4)],
        "diamond": [(0.5 * k, 1.2 if k % 2 else 0.8) for k in range(4)],
        "triangle": [(-0.5 + 2 / 3 * k, 1.15) for k in range(3)],
        "star": [(-0.5 + 0.2 * k, 0.45 if k % 2 else 1.15) for k in range(10)],
    }[thing.shape]
    return [
        (r * distance * math.cos(angle * math.pi), r * distance * math.sin(angle * math.pi))
        for angle, distance in polar
    ], r


def render(things: Sequence[Thing], look: Look, view: View = "front") -> Image.Image:
    """Render the scene as a square RGB image of SIDE pixels."""
    full, cell = SIDE * SUPERSAMPLING, SIDE * SUPERSAMPLING / GRID
    canvas = Image.new("RGB", (full, full), look.background)
    pen = ImageDraw.Draw(canvas)
    for thing in things:
        row, column = divmod(thing.position - 1, GRID)
        x = (column + 0.5) * cell + SUPERSAMPLING * thing.nudge[0]
        y = (row + 0.5) * cell + SUPERSAMPLING * thing.nudge[1]
        corners, r = _outline(thing)
        scales = (1.0,) if thing.material == "solid" else (1.0, 0.55)
        for scale, colour in zip(scales, (COLOURS[thing.color], look.background), strict=False):
            if corners:
                pen.polygon([(x + scale * a, y + scale * b) for a, b in corners], fill=colour)
            else:
                pen.ellipse((x - scale * r, y - scale * r, x + scale * r, y + scale * r), fill=colour)
    if SLANT[view]:
        shear = SLANT[view]
        matrix = (1.0, shear, -shear * full / 2, 0.0, 1.0, 0.0)
        canvas = canvas.transform(
            canvas.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=look.background
        )
    return canvas.reduce(SUPERSAMPLING)


def image_part(things: Sequence[Thing], look: Look, view: View = "front") -> Part:
    """The rendered scene as a part of a prompt."""
    return Part("image", media(render(things, look, view), "image"))


PLURAL = {"cross": "crosses"}


def plural(shape: str) -> str:
    return PLURAL.get(shape, f"{shape}s")


@dataclass(frozen=True)
class Filter:
    """A predicate that selects objects by color, shape or both; empty attributes match everything."""

    color: str = ""
    shape: str = ""

    def __call__(self, thing: Thing) -> bool:
        return self.color in ("", thing.color) and self.shape in ("", thing.shape)

    @property
    def phrase(self) -> str:
        noun = plural(self.shape) if self.shape else "objects"
        return f"{self.color} {noun}".strip()


def random_filter(rng: random.Random, look: Look, things: Sequence[Thing]) -> Filter:
    """Sample a filter by color, shape or both; most filters match at least one object of the scene."""
    example = rng.choice(things)
    if rng.random() < 0.15:
        example = Thing(rng.choice(look.shapes), rng.choice(look.colours), "small", "solid", 1)
    return rng.choice((Filter(example.color), Filter(shape=example.shape), Filter(example.color, example.shape)))


def look_of(name: str) -> Look:
    """Look up a visual domain by name. Raises ConfigError for an unknown one."""
    if name not in LOOKS:
        raise ConfigError(f"look: wanted one of {', '.join(LOOKS)}, found {name!r}; choose one of them.")
    return LOOKS[name]


class ShapeSource(Generated):
    """Base class of synthetic data about shapes."""

    def scene(self, sample_things: Callable[[], list[Thing]]) -> list[Thing]:
        """Sample scenes by `sample_things` until one belongs to the split (rejection sampling)."""
        while True:
            things = sample_things()
            if split_of(things) == self.split:
                return things


class Shapes(ShapeSource, GeneratedQuestions):
    """Questions that a base model should be able to answer, with alternating types and sampled looks.

    "name": list all objects of an image with their cells; "second": the same for one of two images; "count": count the
    objects that match a filter; "sum": a sum, difference or product of two numbers, without an image. The truth is the
    text of the answer, and `meta["cot"]` the single fact that it follows from.
    """

    QUESTION_TYPES = ("name", "second", "count", "sum")
    seed_prefix = "Shapes"
    uid_prefix = "shapes"

    def __init__(
        self,
        split: Split = "train",
        question_types: Sequence[str] = QUESTION_TYPES,
        looks: Sequence[str] = tuple(LOOKS),
        n: int = 1000,
        seed: int = 0,
    ) -> None:
        """Raises ConfigError for an unknown question type, look or split."""
        super().__init__(split, n, seed, question_types, self.QUESTION_TYPES)
        self.looks = [look_of(name) for name in looks]

    def generate(self, index: int) -> Sample:
        question_type, rng = self.question_type(index), self.rng(index)
        images, question, answer, fact = _GENERATORS[question_type](self, rng, rng.choice(self.looks))
        meta = {"kind": question_type, "cot": fact}
        return Sample(self.uid(index), (*images, Part("text", f"{question} {ASK}")), truth=answer, meta=meta)


Question = tuple[list[Part], str, str, str]
"""Images, question, answer, and the fact that the answer follows from, as chains of thought write it."""


def _count(shapes: Shapes, rng: random.Random, look: Look) -> Question:
    things = shapes.scene(lambda: place(rng, look, rng.randint(2, 7)))
    counted = Filter() if rng.random() < 0.25 else random_filter(rng, look, things)
    count = str(sum(map(counted, things)))
    return [image_part(things, look)], f"how many {counted.phrase}?", count, f"{counted.phrase}={count}"


def _name(shapes: Shapes, rng: random.Random, look: Look) -> Question:
    things = shapes.scene(lambda: place(rng, look, rng.randint(1, 6)))
    return [image_part(things, look, _view(rng))], "name the objects.", names(things), "look"


def _second(shapes: Shapes, rng: random.Random, look: Look) -> Question:
    scenes = [shapes.scene(lambda: place(rng, look, rng.randint(1, 3))) for _ in range(2)]
    which = rng.randrange(2)
    images = [image_part(scenes[0], look), image_part(scenes[1], look, _view(rng))]
    return images, f"name the objects of picture {which + 1}.", names(scenes[which]), "look"


def _sum(shapes: Shapes, rng: random.Random, look: Look) -> Question:
    sign = rng.choice("+-*")
    a, b = rng.randint(0, 9), rng.randint(0, 9)
    if sign == "-":
        a, b = max(a, b), min(a, b)
    result = str({"+": a + b, "-": a - b, "*": a * b}[sign])
    return [], f"what is {a}{sign}{b}?", result, f"{a}{sign}{b}={result}"


_GENERATORS = {"count": _count, "name": _name, "second": _second, "sum": _sum}


def _view(rng: random.Random) -> View:
    return rng.choice(("front", "front", "left", "right"))


def names(things: Sequence[Thing], full: bool = False) -> str:
    """List the objects with their cells, by color and shape or (`full`) by all attributes."""
    return ";".join(f"{t.position} {t.full_phrase if full else t.phrase}" for t in things)
