"""Short videos of handwritten digits that appear, drift and disappear, with QA and temporal grounding questions.

Clips are H.264 files. They show the scans of `digits/scenes.py`, different ones in train, val and test.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mmpost.data.media.encode import h264
from mmpost.data.media.limits import DEFAULT, Limits
from mmpost.data.media.media import media
from mmpost.data.sources.base import GeneratedQuestions
from mmpost.data.worlds.digits.scenes import Digit, Scenes, render
from mmpost.errors import ConfigError
from mmpost.types import Part, Sample, Split

QUESTION_TYPES = ("some", "first", "last", "when", "flash", "some when", "first when", "last when")
"""Name a digit (any, the first, the last); locate a digit or the flashing square in time; or both."""

QUESTIONS = {
    "some": "which digit is there?",
    "first": "which digit comes first?",
    "last": "which digit comes last?",
    "when": "when is the {value} there?",
    "flash": "when does the square flash?",
    "some when": "which digit is there, and when?",
    "first when": "which digit comes first, and when?",
    "last when": "which digit comes last, and when?",
}

FPS = 2
"""Frames per second: times are multiples of half a second."""


@dataclass(frozen=True)
class Event:
    """An object that is visible in frames start <= frame < end, and moves meanwhile."""

    digit: Digit | None
    """None: the white square in the upper left corner."""
    start: int
    end: int
    speed: tuple[int, int] = (0, 0)
    """Displacement to the right and down, in pixels per three frames."""

    def at(self, frame: int) -> Digit | None:
        """The digit at its position in `frame`; None where it is not visible."""
        if self.digit is None or not self.start <= frame < self.end:
            return None
        steps = (frame - self.start) // 3
        return replace(self.digit, x=self.digit.x + steps * self.speed[0], y=self.digit.y + steps * self.speed[1])

    @property
    def span(self) -> list[float]:
        """Start and end in seconds."""
        return [self.start / FPS, self.end / FPS]


class Clip(NamedTuple):
    """The digits of one clip in order of appearance, an optional square, and the event that the question refers to."""

    digits: list[Event]
    square: Event | None
    asked: Event


class Clips(GeneratedQuestions):
    """Synthetic questions about clips with alternating question types. Each clip is encoded once, on demand.

    The truth is that of `rewards/span.py`, with spans in seconds from the start of the clip.
    """

    uid_prefix = "clips"
    cache_size = 65_536  # clips take a few KB each, and encoding is slow

    def __init__(
        self,
        split: Split = "train",
        question_types: Sequence[str] = ("first", "when", "first when"),
        n: int = 1000,
        seed: int = 0,
        size: int = 56,
        frames: int = 12,
        loose: float = 0.0,
        limits: Limits = DEFAULT,
    ) -> None:
        """`size` is the side of the square frames in pixels, `frames` their number.

        `loose` simulates careless labels: up to that many seconds are added to each end of a true span. Raises
        ConfigError for an unknown question type or split, and for clips that are too small or too short.
        """
        super().__init__(split, n, seed, question_types, QUESTION_TYPES)
        if size < 48 or size % 2 or frames < 8:
            raise ConfigError(
                f"a clip needs an even size of at least 48 pixels and 8 frames; found {size} and {frames}."
            )
        self.size, self.frames, self.loose, self.limits = size, frames, loose, limits
        self._scenes = Scenes(split, n=n, seed=seed, size=size, heights=(size * 5 // 14, size * 3 // 7))

    def generate(self, index: int) -> Sample:
        question_type, clip = self.question_type(index), self.clip(index)
        file = h264(self.render(clip), FPS)
        value = clip.asked.digit.value if clip.asked.digit else None
        question = QUESTIONS[question_type].format(value=value)
        spans = (
            [self._span(index, clip.asked)]
            if question_type in ("when", "flash") or question_type.endswith(" when")
            else []
        )
        return Sample(
            uid=self.uid(index),
            prompt=(Part("video", media(file, "video", limits=self.limits)), Part("text", question)),
            truth={
                "duration": self.frames / FPS,
                "spans": spans,
                "answer": None if question_type in ("when", "flash") else str(value),
                "options": [],
            },
            meta={
                "kind": question_type,
                "question": question,
                "digits": [e.digit.value for e in clip.digits if e.digit],
            },
        )

    def clip(self, index: int) -> Clip:
        """The events of sample `index`, without rendering the clip."""
        rng = self.rng(index)
        for _ in range(1000):
            clip = self._sample_clip(rng, self.question_type(index))
            if clip is not None:
                return clip
        raise ConfigError(f"found no room for the digits of a clip in {self.size} pixels; raise size.")

    def render(self, clip: Clip) -> np.ndarray:
        """Render the frames: uint8 [frame, height, width, 3]."""
        images = []
        for frame in range(self.frames):
            digits = [digit for event in clip.digits if (digit := event.at(frame)) is not None]
            image = np.array(render(digits, self.size))
            if clip.square is not None and clip.square.start <= frame < clip.square.end:
                image[: self.size // 7, : self.size // 7] = 255
            images.append(image)
        return np.stack(images)

    def _sample_clip(self, rng: random.Random, question_type: str) -> Clip | None:
        """Sample one clip; None where digits touch or appear at almost the same time, so that the order is unclear."""
        count = 2 if question_type.startswith(("first", "last")) else rng.randint(1, 2)
        placed = self._scenes.place_any_height(rng, rng.sample(range(10), count))
        if placed is None:
            return None
        quadrants = rng.sample(((1, 0), (0, 1), (1, 1)), count)
        digits = [self._event(rng, self._move_into(rng, *pair)) for pair in zip(placed, quadrants, strict=True)]
        digits.sort(key=lambda e: e.start)
        if any(b.start - a.start < 2 for a, b in pairwise(digits)) or not self._apart(digits):
            return None
        start = rng.randrange(self.frames - 2)
        flashing = question_type == "flash" or rng.random() < 0.2
        square = Event(None, start, start + rng.randint(2, min(5, self.frames - start))) if flashing else None
        if question_type == "flash":
            assert square is not None
            return Clip(digits, square, square)
        which = {"first": 0, "last": -1}.get(question_type.split()[0], rng.randrange(count))
        return Clip(digits, square, digits[which])

    def _event(self, rng: random.Random, digit: Digit) -> Event:
        length = rng.randint(3, self.frames - 4)
        start = rng.randint(0, self.frames - length)
        return Event(digit, start, start + length, (rng.randint(-1, 1), rng.randint(-1, 1)))

    def _move_into(self, rng: random.Random, digit: Digit, quadrant: tuple[int, int]) -> Digit:
        """Move the digit into a quadrant (column, row) of the frame, so that one visual token can cover it."""
        half = self.size // 2
        x, y = (half * offset + rng.randint(1, max(1, half // 7)) for offset in quadrant)
        return replace(digit, x=x, y=y)

    def _apart(self, digits: Sequence[Event]) -> bool:
        """Whether all digits stay inside the frame, outside the corner of the square, and apart from each other."""
        for frame in range(self.frames):
            boxes = [digit.box for event in digits if (digit := event.at(frame)) is not None]
            if any(min(b[:2]) < 0 or max(b[2:]) > self.size or max(b[:2]) < self.size // 7 for b in boxes):
                return False
            if len(boxes) == 2 and _touch(*boxes):
                return False
        return True

    def _span(self, index: int, event: Event) -> list[float]:
        rng, steps = random.Random(f"loose {self.seed} {index}"), int(self.loose * FPS)
        start, end = event.start - rng.randint(0, steps), event.end + rng.randint(0, steps)
        return [max(0, start) / FPS, min(self.frames, end) / FPS]


def _touch(a: Sequence[int], b: Sequence[int]) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]
