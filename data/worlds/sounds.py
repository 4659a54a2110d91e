"""Multiple-choice questions about synthetic sounds: which came first, how many, rising or falling.

Clips are made on demand, 1 to 1.5 s at 16 kHz: some events with silence between them. Train, val and test clips are
drawn from different random numbers, so that none is in two of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from mmpost.data.formats.choices import TEMPLATE, choice_sample
from mmpost.data.media.media import media
from mmpost.data.sources.base import Indexed
from mmpost.errors import ConfigError
from mmpost.types import Sample, Split

RATE = 16_000
"""Hz."""
GAP = 0.06
"""Seconds of silence between two events, at least."""

NAMES: tuple[str, ...] = ("beep", "buzz", "hiss", "knock", "bell", "siren")
"""What can be heard: a tone, a low rough tone, a burst of noise, a dull stroke, a tone that dies away, a tone that
goes up and down."""
NUMBERS: tuple[str, ...] = ("one", "two", "three", "four")
DIRECTIONS: tuple[str, ...] = ("rising", "falling", "flat")

Wave = Float32[np.ndarray, " sample"]


@dataclass(frozen=True)
class Event:
    """One sound of a clip."""

    name: str
    seconds: float
    pitch: float
    """Hz at its start."""
    glide: float = 1.0
    """Pitch at its end, as a multiple."""
    level: float = 0.5
    """Amplitude, at most 1."""


@dataclass(frozen=True)
class Asked:
    """What a maker draws: the events of a clip in their order, and a question with its options."""

    events: list[Event]
    question: str
    answer: str
    choices: list[str]


def synthesise(event: Event, rng: np.random.Generator) -> Wave:
    """The event as a waveform at `RATE`, with soft edges."""
    n = round(event.seconds * RATE)
    time = np.arange(n) / RATE
    share = np.arange(n) / n
    pitch = event.pitch * event.glide**share
    if event.name == "siren":
        pitch = event.pitch * 2 ** (0.7 * np.sin(2 * np.pi * 2.5 * share))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    shapes: Mapping[str, Callable[[], np.ndarray]] = {
        "buzz": lambda: np.sign(np.sin(phase)) * 0.6,
        "hiss": lambda: rng.normal(0, 0.4, n),
        "knock": lambda: np.exp(-time / 0.03) * (np.sin(phase) + rng.normal(0, 0.3, n)),
        "bell": lambda: np.exp(-time / 0.06) * (np.sin(phase) + 0.5 * np.sin(2.76 * phase)),
    }
    wave = shapes.get(event.name, lambda: np.sin(phase))()
    edge = np.minimum(1.0, np.minimum(time, time[::-1]) / 0.005)
    return (event.level * edge * np.clip(wave, -1.5, 1.5)).astype(np.float32)


def clip(events: Sequence[Event], rng: random.Random, noise: float = 0.0) -> Wave:
    """The events in their order, at random places of 1 to 1.5 s, over white noise of that amplitude."""
    generator = np.random.default_rng(rng.getrandbits(64))
    sounds = [synthesise(event, generator) for event in events]
    taken = sum(len(s) for s in sounds) / RATE + GAP * (len(sounds) - 1)
    length = max(rng.uniform(1.0, 1.5), taken + 0.04)
    # Cuts of the free time, sorted, keep the order and the least gap.
    cuts = sorted(rng.uniform(0, length - taken - 0.02) for _ in sounds)
    wave = generator.normal(0, noise, round(length * RATE)).astype(np.float32)
    start = 0.0
    for cut, sound in zip(cuts, sounds, strict=True):
        at = round((start + cut) * RATE)
        wave[at : at + len(sound)] += sound
        start += len(sound) / RATE + GAP
    return wave


def _event(rng: random.Random, name: str, level: tuple[float, float]) -> Event:
    """One event with pitch, length and level drawn from what its name allows."""
    low, high = {"buzz": (90, 180), "knock": (90, 200), "bell": (700, 1500), "siren": (600, 1100)}.get(
        name, (500, 1800)
    )
    pitch = low * (high / low) ** rng.random()
    seconds = rng.uniform(0.22, 0.3) if name == "siren" else rng.uniform(0.1, 0.18)
    return Event(name, seconds, pitch, level=rng.uniform(*level))


Draw = Callable[[random.Random, tuple[float, float]], Asked]


def _which(rng: random.Random, level: tuple[float, float]) -> Asked:
    name = rng.choice(NAMES)
    others = rng.sample([n for n in NAMES if n != name], 3)
    return Asked([_event(rng, name, level)], "which sound?", name, [name, *others])


def _ordered(place: int, question: str) -> Draw:
    """Two or three different sounds, of which the one at `place` is asked for; the options hold them all."""

    def draw(rng: random.Random, level: tuple[float, float]) -> Asked:
        names = rng.sample(NAMES, 4)
        heard = names[: rng.randint(2, 3)]
        return Asked([_event(rng, n, level) for n in heard], question, heard[place], names)

    return draw


def _absent(rng: random.Random, level: tuple[float, float]) -> Asked:
    names = rng.sample(NAMES, 4)
    return Asked([_event(rng, n, level) for n in names[1:]], "which was not heard?", names[0], names)


def _count(rng: random.Random, level: tuple[float, float]) -> Asked:
    n = rng.randint(1, 4)
    one = _event(rng, rng.choice(NAMES[:5]), level)
    return Asked([one] * n, "how many sounds?", NUMBERS[n - 1], list(NUMBERS))


def _pitch(rng: random.Random, level: tuple[float, float]) -> Asked:
    way = rng.choice(DIRECTIONS)
    ratio = rng.uniform(1.6, 2.5)
    tone = Event(
        "beep",
        rng.uniform(0.3, 0.6),
        pitch=rng.uniform(600, 1200) * (ratio if way == "falling" else 1),
        glide={"rising": ratio, "falling": 1 / ratio, "flat": 1.0}[way],
        level=rng.uniform(*level),
    )
    return Asked([tone], "rising or falling?", way, list(DIRECTIONS))


def _higher(rng: random.Random, level: tuple[float, float]) -> Asked:
    """Two tones; which is the higher one?"""
    low = rng.uniform(500, 900)
    pair = [low, low * rng.uniform(1.5, 2.2)]
    rng.shuffle(pair)
    tones = [Event("beep", rng.uniform(0.12, 0.2), p, level=rng.uniform(*level)) for p in pair]
    return Asked(tones, "which tone was high?", "first" if pair[0] > pair[1] else "second", ["first", "second"])


_DRAW: Mapping[str, Draw] = {
    "which": _which,
    "first": _ordered(0, "which came first?"),
    "last": _ordered(-1, "which came last?"),
    "absent": _absent,
    "count": _count,
    "pitch": _pitch,
    "higher": _higher,
}
KINDS = tuple(_DRAW)
"""What a question can ask: the sound, the first or last of several, the one that is missing, how many, which way the
pitch goes, which of two tones is higher."""


class Sounds(Indexed):
    """`n` clips with a question each; kinds of question take turns, and templates after each round of kinds.

    Truth and meta are those of `data.choices`; `meta["thought"]` names what is heard, in its order: the one thing that
    may be thought before the answer. `noise` and `level` are ranges of amplitudes, of the noise behind a clip and of
    its events. Raises ConfigError for a kind that does not exist.
    """

    name = "sounds"

    def __init__(
        self,
        split: Split,
        kinds: Sequence[str] = KINDS,
        n: int = 1024,
        seed: int = 0,
        templates: Sequence[str] = (TEMPLATE,),
        noise: tuple[float, float] = (0.0, 0.0),
        level: tuple[float, float] = (0.2, 0.8),
    ) -> None:
        unknown = [kind for kind in kinds if kind not in _DRAW]
        if unknown or not kinds:
            raise ConfigError(
                f"wanted kinds of question among {', '.join(KINDS)}, found {', '.join(unknown) or 'none'}"
            )
        self.split, self.kinds, self.n, self.seed = split, tuple(kinds), n, seed
        self.templates, self.noise, self.level = tuple(templates), noise, level

    def __len__(self) -> int:
        return self.n

    def draw(self, index: int) -> tuple[str, Asked, Wave]:
        """The kind, the question and the clip of sample `index`."""
        kind = self.kinds[index % len(self.kinds)]
        rng = random.Random(f"{self.split} {self.seed} {index}")
        asked = _DRAW[kind](rng, self.level)
        rng.shuffle(asked.choices)
        return kind, asked, clip(asked.events, rng, rng.uniform(*self.noise))

    def sample(self, index: int) -> Sample:
        kind, asked, wave = self.draw(index)
        heard = list(dict.fromkeys(e.name for e in asked.events)) if kind == "count" else [e.name for e in asked.events]
        return choice_sample(
            f"{self.split}-{self.seed}-{index}",
            media((wave, RATE), "audio"),
            asked.question,
            asked.choices,
            asked.answer,
            self.templates[index // len(self.kinds) % len(self.templates)],
            {"kind": kind, "thought": " ".join(heard)},
        )
