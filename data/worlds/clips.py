"""Short videos of real handwritten digits that come, drift and go, with questions about which and when.

Each is encoded as H.264 for real. The scans are those of `digits.py`: train, val and test clips use different ones.
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
from mmpost.data.sources.base import Indexed
from mmpost.data.worlds.digits.scenes import Digit, Scenes, draw
from mmpost.errors import ConfigError
from mmpost.types import Part, Sample, Split

KINDS = ("some", "first", "last", "when", "flash", "some when", "first when", "last when")
"""Which digit there is (one, the first, the last), when one is there or the square flashes, or which and when."""

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
"""Frames of a clip per second: times are multiples of half a second."""


@dataclass(frozen=True)
class Event:
    """Something that is seen from frame `start` up to, not including, frame `end`, and moves meanwhile."""

    digit: Digit | None
    """None: the white square in a corner."""
    start: int
    end: int
    speed: tuple[int, int] = (0, 0)
    """Pixels to the right and down in three frames."""

    def at(self, frame: int) -> Digit | None:
        """The digit where it is in that frame; None where it is not seen."""
        if self.digit is None or not self.start <= frame < self.end:
            return None
        gone = (frame - self.start) // 3
        return replace(self.digit, x=self.digit.x + gone * self.speed[0], y=self.digit.y + gone * self.speed[1])

    @property
    def span(self) -> list[float]:
        """Seconds."""
        return [self.start / FPS, self.end / FPS]


class Clip(NamedTuple):
    """The digits of one clip in the order in which they come, perhaps a square, and what the question means."""

    digits: list[Event]
    square: Event | None
    asked: Event


class Clips(Indexed):
    """`n` questions about clips; sample i depends on the arguments and i alone, and is encoded once, on demand.

    The truth is that of `rewards/span.py`: seconds from the start of the clip.
    """

    def __init__(
        self,
        split: Split = "train",
        kinds: Sequence[str] = ("first", "when", "first when"),
        n: int = 1000,
        seed: int = 0,
        size: int = 56,
        frames: int = 12,
        loose: float = 0.0,
        limits: Limits = DEFAULT,
    ) -> None:
        """`kinds` take turns; `loose` seconds at most are added to each end of a true span, as careless labels are.

        Raises ConfigError for a kind or split that is unknown.
        """
        unknown = sorted(set(kinds) - set(KINDS))
        if unknown or not kinds:
            raise ConfigError(
                f"kinds must be some of {', '.join(KINDS)}; found {', '.join(unknown) or 'none'}; name only those."
            )
        if size < 48 or size % 2 or frames < 8:
            raise ConfigError(
                f"a clip needs an even size of at least 48 pixels and 8 frames; found {size} and {frames}."
            )
        self.split, self.kinds, self.n, self.seed = split, tuple(kinds), n, seed
        self.size, self.frames, self.loose, self.limits = size, frames, loose, limits
        self._scenes = Scenes(split, n=n, seed=seed, size=size, heights=(size * 5 // 14, size * 3 // 7))
        self._files: dict[int, bytes] = {}

    def __len__(self) -> int:
        return self.n

    def sample(self, index: int) -> Sample:
        kind, clip = self.kinds[index % len(self.kinds)], self.clip(index)
        if index not in self._files:
            self._files[index] = h264(self.draw(clip), FPS)
        value = clip.asked.digit.value if clip.asked.digit else None
        question = QUESTIONS[kind].format(value=value)
        spans = [self._span(index, clip.asked)] if kind in ("when", "flash") or kind.endswith(" when") else []
        return Sample(
            uid=f"clips-{self.split}-{self.seed}-{index}",
            prompt=(Part("video", media(self._files[index], "video", limits=self.limits)), Part("text", question)),
            truth={
                "duration": self.frames / FPS,
                "spans": spans,
                "answer": None if kind in ("when", "flash") else str(value),
                "options": [],
            },
            meta={"kind": kind, "question": question, "digits": [e.digit.value for e in clip.digits if e.digit]},
        )

    def clip(self, i: int) -> Clip:
        """What happens in sample i, without drawing it."""
        kind = self.kinds[i % len(self.kinds)]
        rng = random.Random(f"{self.split} {self.seed} {i}")
        for _ in range(1000):
            clip = self._happening(rng, kind)
            if clip is not None:
                return clip
        raise ConfigError(f"found no room for the digits of a clip in {self.size} pixels; raise size.")

    def draw(self, clip: Clip) -> np.ndarray:
        """uint8 [frame, height, width, 3]."""
        shown = []
        for frame in range(self.frames):
            digits = [digit for event in clip.digits if (digit := event.at(frame)) is not None]
            picture = np.array(draw(digits, self.size))
            if clip.square is not None and clip.square.start <= frame < clip.square.end:
                picture[: self.size // 7, : self.size // 7] = 255
            shown.append(picture)
        return np.stack(shown)

    def _happening(self, rng: random.Random, kind: str) -> Clip | None:
        """One try; None where digits touch, or nothing tells which comes first."""
        many = 2 if kind.startswith(("first", "last")) else rng.randint(1, 2)
        placed = self._scenes.some(rng, rng.sample(range(10), many))
        if placed is None:
            return None
        quarters = rng.sample(((1, 0), (0, 1), (1, 1)), many)
        digits = [self._event(rng, self._into(rng, *pair)) for pair in zip(placed, quarters, strict=True)]
        digits.sort(key=lambda e: e.start)
        if any(b.start - a.start < 2 for a, b in pairwise(digits)) or not self._apart(digits):
            return None
        start = rng.randrange(self.frames - 2)
        flashing = kind == "flash" or rng.random() < 0.2
        square = Event(None, start, start + rng.randint(2, min(5, self.frames - start))) if flashing else None
        if kind == "flash":
            assert square is not None
            return Clip(digits, square, square)
        which = {"first": 0, "last": -1}.get(kind.split()[0], rng.randrange(many))
        return Clip(digits, square, digits[which])

    def _event(self, rng: random.Random, digit: Digit) -> Event:
        lasting = rng.randint(3, self.frames - 4)
        start = rng.randint(0, self.frames - lasting)
        return Event(digit, start, start + lasting, (rng.randint(-1, 1), rng.randint(-1, 1)))

    def _into(self, rng: random.Random, digit: Digit, quarter: tuple[int, int]) -> Digit:
        """The digit in that quarter (column, row) of the picture, where it is learnt soon: a patch sees it whole."""
        half = self.size // 2
        x, y = (half * at + rng.randint(1, max(1, half // 7)) for at in quarter)
        return replace(digit, x=x, y=y)

    def _apart(self, digits: Sequence[Event]) -> bool:
        """Whether all digits stay in the picture, out of the square's corner, and clear of one another."""
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
