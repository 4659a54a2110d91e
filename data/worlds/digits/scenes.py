"""Referring expressions on scenes of real handwritten digits: "the 7", "all the 3s", "the digit left of the 4".

The digits are scikit-learn's 1,797 scans of 8 x 8 pixels; train, val and test scenes use different scans.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mmpost.data.media.media import media
from mmpost.data.sources.base import GeneratedQuestions, check_names
from mmpost.errors import ConfigError
from mmpost.types import CoordinateFrame, Part, Sample, Split

QUESTION_TYPES = (
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
    "any:leftmost",
    "any:rightmost",
    "any:top",
    "any:bottom",
    "group",
)
"""Referents: one digit by its value, all of a value, all but one, an extreme, a neighbor; any digit, of which the label
has always the same one; or all digits as one, in one box."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "extreme": ("largest", "smallest"),
    "side": ("leftmost", "rightmost", "top", "bottom"),
    "far": ("last from the left", "last from the top"),
    "relation": ("left", "right", "above", "below"),
}
"""Names for several question types at once."""

RELATION = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
DIRECTION: dict[str, tuple[int, int]] = {
    "left": (0, -1), "leftmost": (0, -1), "right": (0, 1), "rightmost": (0, 1),
    "above": (1, -1), "top": (1, -1), "below": (1, 1), "bottom": (1, 1),
    "last from the left": (0, 1), "last from the top": (1, 1),
}  # fmt: skip
"""Axis (0: x, 1: y) and sign of each spatial word; y points down."""


@dataclass(frozen=True)
class Region:
    """A rectangle on the canvas, in pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def box(self) -> list[int]:
        return [self.x, self.y, self.x + self.width, self.y + self.height]

    @property
    def center(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2


@dataclass(frozen=True)
class Digit(Region):
    """The ink of one scan: its value, and its index in the dataset."""

    value: int
    scan: int


class Scene(NamedTuple):
    """The digits of one image, and what the question refers to (nothing where there is no such digit)."""

    digits: list[Digit]
    question: str
    answer: Sequence[Region]


@cache
def _scans() -> tuple[list[np.ndarray], np.ndarray]:
    """All scans, cropped to their ink, with values 0..255, and their labels."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    crops = []
    for image in bunch.images:
        ink = image > 2
        rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
        crop = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        crops.append((crop * (255 / 16)).astype(np.uint8))
    return crops, bunch.target


@cache
def _by_value(split: Split) -> list[list[int]]:
    """Indices of the scans of each digit in `split`: of every ten, eight are train, one val and one test."""
    tens = {"train": range(8), "val": (8,), "test": (9,)}[split]
    _, values = _scans()
    # Neighboring scans often come from the same writer; a fixed shuffle spreads writers over the splits.
    order = np.random.default_rng(0).permutation(len(values))
    return [[int(i) for place, i in enumerate(order) if values[i] == v and place % 10 in tens] for v in range(10)]


@cache
def _resized(scan: int, height: int) -> Image.Image:
    """The scan resized to `height` pixels, keeping its aspect ratio."""
    crops, _ = _scans()
    rows, columns = crops[scan].shape
    size = (max(3, round(height * columns / rows)), height)
    return Image.fromarray(crops[scan]).resize(size, Image.Resampling.BILINEAR)


def render(digits: Sequence[Digit], size: int) -> Image.Image:
    """Render white digits on a black square of `size` x `size` pixels."""
    canvas = Image.new("L", (size, size))
    for digit in digits:
        canvas.paste(_resized(digit.scan, digit.height), (digit.x, digit.y))
    return canvas.convert("RGB")


def answer_item(region: Region) -> dict[str, list[int]]:
    """The entry of the answer that marks `region`, in pixels of the canvas."""
    x, y = region.center
    return {"bbox_2d": region.box, "point_2d": [int(x), int(y)]}


EXAMPLE = [{"bbox_2d": [10, 20, 30, 40], "point_2d": [20, 30]}]
"""The example in the prompt, in exactly the format of the answers."""


def prompt_text(question: str) -> str:
    """The instruction that follows the image."""
    example = json.dumps(EXAMPLE)
    return f'find "{question.lower()}" with box and point; think in <think>, answer in <answer>, like {example}'


def answer_text(truth: Mapping[str, Any], frame: CoordinateFrame | None = None, thought: str | None = None) -> str:
    """Format the truth as a reply, with coordinates rounded to units of `frame` (default: the frame of the truth).

    Without a thought it is the bare answer. An object whose point is None gets none.
    """
    source = CoordinateFrame(*truth["frame"])
    target = frame or source
    pairs = zip(truth["boxes"], truth["points"], strict=True)
    objects = [{"bbox_2d": box} if point is None else {"bbox_2d": box, "point_2d": point} for box, point in pairs]
    items = [
        {name: [round(v) for v in source.convert(target, numbers)] for name, numbers in item.items()}
        for item in objects
    ]
    answer = f"<answer>{json.dumps(items)}</answer>"
    return answer if thought is None else f"<think>{thought}</think>{answer}"


def listing_thought(sample: Sample) -> str:
    """A thought from which the answer can be read: value and center of every digit, from left to right, in the model's
    frame, as " 7, 12, 40 3, 55, 21"; " none" without digits."""
    source = CoordinateFrame(*sample.truth["frame"])
    target = sample.frame or source
    listed = []
    for value, center in sorted(zip(sample.meta["digits"], sample.meta["centers"], strict=True), key=lambda d: d[1]):
        x, y = source.convert(target, center)
        listed.append(f" {value}, {round(x)}, {round(y)}")
    return "".join(listed) or " none"


class Scenes(GeneratedQuestions):
    """Synthetic questions about scenes of digits, with alternating question types.

    The truth holds `boxes` (x1, y1, x2, y2) and `points` (x, y), ordered from left to right, and their `frame` (width
    and height of the canvas), all in pixels.
    """

    uid_prefix = "digits"

    def __init__(
        self,
        split: Split = "train",
        question_types: Sequence[str] = ("single", "all"),
        n: int = 1000,
        seed: int = 0,
        size: int = 84,
        count: tuple[int, int] = (1, 3),
        heights: tuple[int, int] = (20, 32),
        none: float = 0.1,
    ) -> None:
        """`size` is the side of the canvas; each scene has `count` digits of `heights` pixels (both ranges inclusive).

        `question_types` may use the names of `GROUPS`. A fraction `none` of the questions refers to no digit of the
        scene (of those about any digit none does). Raises ConfigError for an unknown question type or split.
        """
        check_names("question_types", question_types, (*QUESTION_TYPES, *GROUPS))
        expanded = [t for name in question_types for t in GROUPS.get(name, (name,))]
        super().__init__(split, n, seed, expanded, QUESTION_TYPES)
        self.size, self.count_range, self.heights, self.none = size, count, heights, none

    def generate(self, index: int) -> Sample:
        question_type, scene = self.question_type(index), self.scene(index)
        items = [answer_item(d) for d in sorted(scene.answer, key=lambda d: (d.x, d.y))]
        return Sample(
            uid=self.uid(index),
            prompt=(
                Part("image", media(render(scene.digits, self.size), "image")),
                Part("text", prompt_text(scene.question)),
            ),
            truth={**_as_truth(items), "frame": [self.size, self.size], **self._alternatives(question_type, scene)},
            meta={
                "kind": question_type,
                "question": scene.question,
                "digits": [d.value for d in scene.digits],
                "centers": [[int(v) for v in d.center] for d in scene.digits],
            },
        )

    @staticmethod
    def _alternatives(question_type: str, scene: Scene) -> dict[str, Any]:
        """All right answers, where there are several."""
        if not question_type.startswith("any:"):
            return {}
        return {"alternatives": [_as_truth([answer_item(digit)]) for digit in scene.digits]}

    def scene(self, index: int) -> Scene:
        """The digits and the question of sample `index`, without rendering the image."""
        question_type, rng = self.question_type(index), self.rng(index)
        none = rng.random() < self.none
        # Placement can fail, and some layouts make the question ambiguous: retry until one is clear.
        for _ in range(1000):
            scene = _GENERATORS[question_type](self, rng, question_type, none)
            if scene is not None:
                return scene
        raise ConfigError(
            f"found no room for {self.count_range[1]} digits of {self.heights} pixels in {self.size}; "
            "lower count or heights, or raise size."
        )

    def place(self, rng: random.Random, values: Sequence[int], heights: Sequence[int]) -> list[Digit] | None:
        """Place scans of `values` at random, at least two pixels apart; None if they do not fit."""
        placed: list[Digit] = []
        for value, height in zip(values, heights, strict=True):
            scan = rng.choice(_by_value(self.split)[value])
            width = _resized(scan, height).width
            for _ in range(20):
                x, y = rng.randint(0, self.size - width), rng.randint(0, self.size - height)
                digit = Digit(x, y, width, height, value, scan)
                if not any(_touch(digit, other) for other in placed):
                    placed.append(digit)
                    break
            else:
                return None
        return placed

    def place_any_height(self, rng: random.Random, values: Sequence[int]) -> list[Digit] | None:
        """`place` with heights sampled uniformly from `heights`."""
        return self.place(rng, values, [rng.randint(*self.heights) for _ in values])

    def place_several(self, rng: random.Random) -> list[Digit] | None:
        """`place_any_height` with two digits or more, of any value."""
        n = rng.randint(max(2, self.count_range[0]), max(2, self.count_range[1]))
        return self.place_any_height(rng, [rng.randrange(10) for _ in range(n)])


def _as_truth(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Entries of an answer as boxes and points."""
    return {"boxes": [item["bbox_2d"] for item in items], "points": [item["point_2d"] for item in items]}


def _touch(a: Digit, b: Digit, gap: int = 2) -> bool:
    """Whether two boxes are less than `gap` pixels apart."""
    return (
        a.x < b.x + b.width + gap
        and b.x < a.x + a.width + gap
        and a.y < b.y + b.height + gap
        and b.y < a.y + a.height + gap
    )


def _others(rng: random.Random, n: int, than: int) -> list[int]:
    """Sample `n` values other than `than`."""
    return [rng.choice([v for v in range(10) if v != than]) for _ in range(n)]


def _single(scenes: Scenes, rng: random.Random, question_type: str, none: bool) -> Scene | None:
    value, n = rng.randrange(10), rng.randint(*scenes.count_range)
    digits = scenes.place_any_height(rng, [value] * (not none) + _others(rng, n - (not none), value))
    return Scene(digits, f"the {value}", [d for d in digits if d.value == value]) if digits else None


def _all(scenes: Scenes, rng: random.Random, question_type: str, none: bool) -> Scene | None:
    value, n = rng.randrange(10), rng.randint(*scenes.count_range)
    repeats = 0 if none else rng.randint(1, min(n, 3))
    digits = scenes.place_any_height(rng, [value] * repeats + _others(rng, n - repeats, value))
    return Scene(digits, f"all the {value}s", [d for d in digits if d.value == value]) if digits else None


def _others_than(scenes: Scenes, rng: random.Random, question_type: str, none: bool) -> Scene | None:
    value, n = rng.randrange(10), rng.randint(max(2, scenes.count_range[0]), max(2, scenes.count_range[1]))
    digits = scenes.place_any_height(rng, [value] + ([] if none else _others(rng, n - 1, value)))
    return Scene(digits, f"all digits but the {value}", digits[1:]) if digits else None


def _by_size(scenes: Scenes, rng: random.Random, question_type: str, none: bool) -> Scene | None:
    question = f"the {question_type} digit"
    if none:
        return Scene([], question, [])
    n, (low, high) = rng.randint(max(2, scenes.count_range[0]), max(2, scenes.count_range[1])), scenes.heights
    # The answer is at least a quarter larger or smaller than every other digit, so that it is visibly the extreme one.
    if question_type == "largest":
        best = rng.randint(min(high, round(low * 1.25) + 1), high)
        rest = [rng.randint(low, max(low, int(best / 1.25))) for _ in range(n - 1)]
    else:
        best = rng.randint(low, max(low, int(high / 1.25) - 1))
        rest = [rng.randint(min(high, round(best * 1.25)), high) for _ in range(n - 1)]
    digits = scenes.place(rng, [rng.randrange(10) for _ in range(n)], [best, *rest])
    return Scene(digits, question, digits[:1]) if digits else None


def _by_side(scenes: Scenes, rng: random.Random, question_type: str, none: bool) -> Scene | None:
    question = f"the digit {question_type}" if question_type in GROUPS["far"] else f"the {question_type} digit"
    if none:
        return Scene([], question, [])
    digits = scenes.place_several(rng)
    if digits is None:
        return None
    axis, sign = DIRECTION[question_type]
    order = sorted(digits, key=lambda d: -sign * d.center[axis])
    clear = abs(order[0].center[axis] - order[1].center[axis]) >= scenes.size / 12
    return Scene(digits, question, order[:1]) if clear else None


def _relation(scenes: Scenes, rng: random.Random, question_type: str, none: bool) -> Scene | None:
    value = rng.randrange(10)
    question = f"the digit {RELATION[question_type]} the {value}"
    n = rng.randint(max(2, scenes.count_range[0]), max(2, scenes.count_range[1]))
    absent = none and rng.random() < 0.5
    digits = scenes.place_any_height(rng, [value] * (not absent) + _others(rng, n - (not absent), value))
    if digits is None:
        return None
    if absent:
        return Scene(digits, question, [])
    axis, sign = DIRECTION[question_type]
    ahead = [sign * (d.center[axis] - digits[0].center[axis]) for d in digits[1:]]
    hits = [d for d, a in zip(digits[1:], ahead, strict=True) if a > 0]
    clear = all(abs(a) >= scenes.size / 12 for a in ahead) and len(hits) == (not none)
    return Scene(digits, question, hits) if clear else None


def _any(scenes: Scenes, rng: random.Random, question_type: str, none: bool) -> Scene | None:
    digits = scenes.place_several(rng)
    if digits is None:
        return None
    axis, sign = DIRECTION[question_type.removeprefix("any:")]
    return Scene(digits, "one of the digits", [max(digits, key=lambda d: sign * d.center[axis])])


def _group(scenes: Scenes, rng: random.Random, question_type: str, none: bool) -> Scene | None:
    question = "the group of digits"
    if none:
        return Scene([], question, [])
    digits = scenes.place_several(rng)
    if digits is None:
        return None
    lefts, tops, rights, bottoms = zip(*(digit.box for digit in digits), strict=True)
    x, y = min(lefts), min(tops)
    return Scene(digits, question, [Region(x, y, max(rights) - x, max(bottoms) - y)])


_GENERATORS: dict[str, Callable[[Scenes, random.Random, str, bool], Scene | None]] = {
    "single": _single,
    "all": _all,
    "others": _others_than,
    **dict.fromkeys(GROUPS["extreme"], _by_size),
    **dict.fromkeys((*GROUPS["side"], *GROUPS["far"]), _by_side),
    **dict.fromkeys(GROUPS["relation"], _relation),
    "group": _group,
    **dict.fromkeys((name for name in QUESTION_TYPES if name.startswith("any:")), _any),
}
