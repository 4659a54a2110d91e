"""Referring expressions on scenes of real handwritten digits: "the 7", "all the 3s", "the digit left of the 4".

The digits are scikit-learn's 1,797 scans of 8 x 8 pixels; train, val and test scenes use different scans.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from mmpost.data.media.media import media
from mmpost.data.sources.base import Indexed
from mmpost.errors import ConfigError
from mmpost.types import CoordinateFrame, Part, Sample

Split = Literal["train", "val", "test"]

KINDS = (
    "single",
    "all",
    "others",
    "largest",
    "smallest",
    "leftmost",
    "rightmost",
    "top",
    "bottom",
    "last from the left",
    "last from the top",
    "left",
    "right",
    "above",
    "below",
)
"""What a question can ask: a digit by its value, all of a value, all but one, an extreme, or a neighbour of a digit."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "extreme": ("largest", "smallest"),
    "side": ("leftmost", "rightmost", "top", "bottom"),
    "far": ("last from the left", "last from the top"),
    "relation": ("left", "right", "above", "below"),
}
"""Names for several kinds at once."""

RELATION = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
WAYS: dict[str, tuple[int, int]] = {
    "left": (0, -1), "leftmost": (0, -1), "right": (0, 1), "rightmost": (0, 1),
    "above": (1, -1), "top": (1, -1), "below": (1, 1), "bottom": (1, 1),
    "last from the left": (0, 1), "last from the top": (1, 1),
}  # fmt: skip
"""Axis and direction of a word."""


@dataclass(frozen=True)
class Digit:
    """One scan on the canvas: its value, which scan, and its box of ink in pixels."""

    value: int
    scan: int
    x: int
    y: int
    width: int
    height: int

    @property
    def box(self) -> list[int]:
        return [self.x, self.y, self.x + self.width, self.y + self.height]

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2


class Scene(NamedTuple):
    """The digits of one picture, and which of them the question means (none where there is no such object)."""

    digits: list[Digit]
    question: str
    answer: list[Digit]


@cache
def _scans() -> tuple[list[np.ndarray], np.ndarray]:
    """Every scan cut to its ink, values 0..255, and what it shows."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    cut = []
    for image in bunch.images:
        ink = image > 2
        rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
        tight = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        cut.append((tight * (255 / 16)).astype(np.uint8))
    return cut, bunch.target


@cache
def _by_value(split: Split) -> list[list[int]]:
    """Indices of the scans of each value in `split`: of ten in a row, eight train, one validates, one tests."""
    tens = {"train": range(8), "val": (8,), "test": (9,)}[split]
    _, values = _scans()
    # Neighbours in the file are often by one hand; a fixed shuffle keeps the splits alike.
    order = np.random.default_rng(0).permutation(len(values))
    return [[int(i) for place, i in enumerate(order) if values[i] == v and place % 10 in tens] for v in range(10)]


@cache
def _drawn(scan: int, height: int) -> Image.Image:
    """The scan at a height in pixels, width in proportion."""
    cut, _ = _scans()
    rows, columns = cut[scan].shape
    size = (max(3, round(height * columns / rows)), height)
    return Image.fromarray(cut[scan]).resize(size, Image.Resampling.BILINEAR)


def draw(digits: Sequence[Digit], size: int) -> Image.Image:
    """White digits on a black square of `size` pixels."""
    canvas = Image.new("L", (size, size))
    for digit in digits:
        canvas.paste(_drawn(digit.scan, digit.height), (digit.x, digit.y))
    return canvas.convert("RGB")


def item(digit: Digit) -> dict[str, list[int]]:
    """A digit as the answer names it."""
    x, y = digit.centre
    return {"bbox_2d": digit.box, "point_2d": [int(x), int(y)]}


EXAMPLE = [{"bbox_2d": [10, 20, 30, 40], "point_2d": [20, 30]}]
"""Shown in the prompt, written exactly as the answers are."""


def prompt_text(question: str) -> str:
    """The instruction that follows the picture."""
    like = json.dumps(EXAMPLE)
    return f'find "{question.lower()}" with box and point; think in <think>, answer in <answer>, like {like}'


def answer_text(truth: Mapping[str, Any], frame: CoordinateFrame | None = None, thought: str | None = None) -> str:
    """The one way an answer is written, in whole units of `frame` (by default the truth's own).

    Without a thought it is the bare answer: a label carries no reasoning, so it earns nothing for its thinking format.
    """
    own = CoordinateFrame(*truth["frame"])
    to = frame or own
    pairs = zip(truth["boxes"], truth["points"], strict=True)
    items = [
        {"bbox_2d": [round(v) for v in own.convert(to, box)], "point_2d": [round(v) for v in own.convert(to, point)]}
        for box, point in pairs
    ]
    answer = f"<answer>{json.dumps(items)}</answer>"
    return answer if thought is None else f"<think>{thought}</think>{answer}"


def where(truth: Mapping[str, Any]) -> str:
    """A thought before the answer: the part of the picture in which each point lies, or "none"."""
    width, height = truth["frame"]
    rows, columns = ("top", "middle", "bottom"), ("left", "center", "right")
    parts = [f"{rows[min(2, int(3 * y / height))]} {columns[min(2, int(3 * x / width))]}" for x, y in truth["points"]]
    return ", ".join(parts) or "none"


class Scenes(Indexed):
    """`n` questions about scenes of digits; sample i depends on the arguments and i alone, drawn on demand.

    The truth holds `boxes` (x1, y1, x2, y2) and `points` (x, y), left to right, and their `frame`: canvas pixels.
    """

    def __init__(
        self,
        split: Split = "train",
        kinds: Sequence[str] = ("single", "all"),
        n: int = 1000,
        seed: int = 0,
        size: int = 84,
        count: tuple[int, int] = (1, 3),
        heights: tuple[int, int] = (20, 32),
        none: float = 0.1,
    ) -> None:
        """`kinds` take turns (repeat one to see more of it); `count` digits of `heights` pixels a scene, inclusive.

        `none` is the share of questions with no such object. Raises ConfigError for a kind or split that is unknown.
        """
        self.kinds = [k for name in kinds for k in GROUPS.get(name, (name,))]
        unknown = sorted(set(self.kinds) - set(KINDS))
        if unknown or not self.kinds:
            known = ", ".join((*KINDS, *GROUPS))
            raise ConfigError(f"kinds must be some of {known}; found {', '.join(unknown) or 'none'}; name only those.")
        if split not in ("train", "val", "test"):
            raise ConfigError(f"split must be train, val or test; found {split!r}; choose one of them.")
        self.split, self.n, self.seed, self.size, self.none = split, n, seed, size, none
        self.many, self.heights = count, heights

    def __len__(self) -> int:
        return self.n

    def sample(self, index: int) -> Sample:
        kind = self.kinds[index % len(self.kinds)]
        scene = self.scene(index)
        chosen = [item(d) for d in sorted(scene.answer, key=lambda d: (d.x, d.y))]
        return Sample(
            uid=f"digits-{self.split}-{self.seed}-{index}",
            prompt=(
                Part("image", media(draw(scene.digits, self.size), "image")),
                Part("text", prompt_text(scene.question)),
            ),
            truth={
                "boxes": [c["bbox_2d"] for c in chosen],
                "points": [c["point_2d"] for c in chosen],
                "frame": [self.size, self.size],
            },
            meta={"kind": kind, "question": scene.question, "digits": [d.value for d in scene.digits]},
        )

    def scene(self, i: int) -> Scene:
        """The digits and the question of sample i, without drawing it."""
        kind = self.kinds[i % len(self.kinds)]
        rng = random.Random(f"{self.split} {self.seed} {i}")
        none = rng.random() < self.none
        make = _MAKERS[kind]
        # Placing can fail, and some layouts leave the question open: draw again until one is clear.
        for _ in range(1000):
            scene = make(self, rng, kind, none)
            if scene is not None:
                return scene
        raise ConfigError(
            f"found no room for {self.many[1]} digits of {self.heights} pixels in {self.size}; "
            "lower count or heights, or raise size."
        )

    def place(self, rng: random.Random, values: Sequence[int], heights: Sequence[int]) -> list[Digit] | None:
        """Scans of `values` at free places two pixels apart, or None where they do not fit."""
        placed: list[Digit] = []
        for value, height in zip(values, heights, strict=True):
            scan = rng.choice(_by_value(self.split)[value])
            width = _drawn(scan, height).width
            for _ in range(20):
                x, y = rng.randint(0, self.size - width), rng.randint(0, self.size - height)
                digit = Digit(value, scan, x, y, width, height)
                if not any(_touch(digit, other) for other in placed):
                    placed.append(digit)
                    break
            else:
                return None
        return placed

    def some(self, rng: random.Random, values: Sequence[int]) -> list[Digit] | None:
        """`place` with heights drawn freely."""
        return self.place(rng, values, [rng.randint(*self.heights) for _ in values])


def _touch(a: Digit, b: Digit, gap: int = 2) -> bool:
    """Whether two boxes are less than `gap` pixels apart."""
    return (
        a.x < b.x + b.width + gap
        and b.x < a.x + a.width + gap
        and a.y < b.y + b.height + gap
        and b.y < a.y + a.height + gap
    )


def _others(rng: random.Random, n: int, than: int) -> list[int]:
    """`n` values other than `than`."""
    return [rng.choice([v for v in range(10) if v != than]) for _ in range(n)]


def _single(scenes: Scenes, rng: random.Random, kind: str, none: bool) -> Scene | None:
    value, n = rng.randrange(10), rng.randint(*scenes.many)
    digits = scenes.some(rng, [value] * (not none) + _others(rng, n - (not none), value))
    return Scene(digits, f"the {value}", [d for d in digits if d.value == value]) if digits else None


def _all(scenes: Scenes, rng: random.Random, kind: str, none: bool) -> Scene | None:
    value, n = rng.randrange(10), rng.randint(*scenes.many)
    alike = 0 if none else rng.randint(1, min(n, 3))
    digits = scenes.some(rng, [value] * alike + _others(rng, n - alike, value))
    return Scene(digits, f"all the {value}s", [d for d in digits if d.value == value]) if digits else None


def _others_than(scenes: Scenes, rng: random.Random, kind: str, none: bool) -> Scene | None:
    value, n = rng.randrange(10), rng.randint(max(2, scenes.many[0]), max(2, scenes.many[1]))
    digits = scenes.some(rng, [value] + ([] if none else _others(rng, n - 1, value)))
    return Scene(digits, f"all digits but the {value}", digits[1:]) if digits else None


def _by_size(scenes: Scenes, rng: random.Random, kind: str, none: bool) -> Scene | None:
    question = f"the {kind} digit"
    if none:
        return Scene([], question, [])
    n, (low, high) = rng.randint(max(2, scenes.many[0]), max(2, scenes.many[1])), scenes.heights
    # The winner is a quarter larger or smaller than every other digit, so the answer is plain to see.
    if kind == "largest":
        best = rng.randint(min(high, round(low * 1.25) + 1), high)
        rest = [rng.randint(low, max(low, int(best / 1.25))) for _ in range(n - 1)]
    else:
        best = rng.randint(low, max(low, int(high / 1.25) - 1))
        rest = [rng.randint(min(high, round(best * 1.25)), high) for _ in range(n - 1)]
    digits = scenes.place(rng, [rng.randrange(10) for _ in range(n)], [best, *rest])
    return Scene(digits, question, digits[:1]) if digits else None


def _by_side(scenes: Scenes, rng: random.Random, kind: str, none: bool) -> Scene | None:
    question = f"the digit {kind}" if kind in GROUPS["far"] else f"the {kind} digit"
    if none:
        return Scene([], question, [])
    n = rng.randint(max(2, scenes.many[0]), max(2, scenes.many[1]))
    digits = scenes.some(rng, [rng.randrange(10) for _ in range(n)])
    if digits is None:
        return None
    axis, sign = WAYS[kind]
    order = sorted(digits, key=lambda d: -sign * d.centre[axis])
    clear = abs(order[0].centre[axis] - order[1].centre[axis]) >= scenes.size / 12
    return Scene(digits, question, order[:1]) if clear else None


def _relation(scenes: Scenes, rng: random.Random, kind: str, none: bool) -> Scene | None:
    value = rng.randrange(10)
    question = f"the digit {RELATION[kind]} the {value}"
    n = rng.randint(max(2, scenes.many[0]), max(2, scenes.many[1]))
    absent = none and rng.random() < 0.5
    digits = scenes.some(rng, [value] * (not absent) + _others(rng, n - (not absent), value))
    if digits is None:
        return None
    if absent:
        return Scene(digits, question, [])
    axis, sign = WAYS[kind]
    ahead = [sign * (d.centre[axis] - digits[0].centre[axis]) for d in digits[1:]]
    hits = [d for d, a in zip(digits[1:], ahead, strict=True) if a > 0]
    clear = all(abs(a) >= scenes.size / 12 for a in ahead) and len(hits) == (not none)
    return Scene(digits, question, hits) if clear else None


_MAKERS: dict[str, Callable[[Scenes, random.Random, str, bool], Scene | None]] = {
    "single": _single,
    "all": _all,
    "others": _others_than,
    **dict.fromkeys(GROUPS["extreme"], _by_size),
    **dict.fromkeys((*GROUPS["side"], *GROUPS["far"]), _by_side),
    **dict.fromkeys(GROUPS["relation"], _relation),
}
