"""Multiple-choice questions about synthetic sounds: order, count, absence and pitch.

Clips are synthesized on demand: 1 to 1.5 s at 16 kHz with a few events, separated by silence. Train, val and test clips
come from different random streams, so that no clip is in two splits.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from mmpost.data.formats.choices import TEMPLATE, choice_sample
from mmpost.data.media.media import media
from mmpost.data.sources.base import GeneratedQuestions
from mmpost.types import Sample, Split

RATE = 16_000
"""Sampling rate in Hz."""
GAP = 0.06
"""Minimum silence between two events in seconds."""

NAMES: tuple[str, ...] = ("beep", "buzz", "hiss", "knock", "bell", "siren")
"""Sound events: a tone, a low square wave, a noise burst, a thud, a decaying tone, a tone with rising and falling
pitch."""
NUMBERS: tuple[str, ...] = ("one", "two", "three", "four")
DIRECTIONS: tuple[str, ...] = ("rising", "falling", "flat")

Wave = Float32[np.ndarray, " sample"]


@dataclass(frozen=True)
class Event:
    """One sound of a clip."""

    name: str
    seconds: float
    pitch: float
    """Pitch at the start in Hz."""
    glide: float = 1.0
    """Ratio of the pitch at the end to that at the start."""
    level: float = 0.5
    """Amplitude, at most 1."""


@dataclass(frozen=True)
class Question:
    """The events of a clip in order, and a question about them with its options."""

    events: list[Event]
    question: str
    answer: str
    choices: list[str]


def synthesize(event: Event, rng: np.random.Generator) -> Wave:
    """Synthesize the event as a waveform at `RATE`, with 5 ms fades at both ends."""
    n = round(event.seconds * RATE)
    time = np.arange(n) / RATE
    position = np.arange(n) / n
    pitch = event.pitch * event.glide**position
    if event.name == "siren":
        pitch = event.pitch * 2 ** (0.7 * np.sin(2 * np.pi * 2.5 * position))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    waveforms: Mapping[str, Callable[[], np.ndarray]] = {
        "buzz": lambda: np.sign(np.sin(phase)) * 0.6,
        "hiss": lambda: rng.normal(0, 0.4, n),
        "knock": lambda: np.exp(-time / 0.03) * (np.sin(phase) + rng.normal(0, 0.3, n)),
        "bell": lambda: np.exp(-time / 0.06) * (np.sin(phase) + 0.5 * np.sin(2.76 * phase)),
    }
    wave = waveforms.get(event.name, lambda: np.sin(phase))()
    fade = np.minimum(1.0, np.minimum(time, time[::-1]) / 0.005)
    return (event.level * fade * np.clip(wave, -1.5, 1.5)).astype(np.float32)


def clip(events: Sequence[Event], rng: random.Random, noise: float = 0.0) -> Wave:
    """Place the events in order, at random times of a 1 to 1.5 s clip with white noise of amplitude `noise`."""
    generator = np.random.default_rng(rng.getrandbits(64))
    sounds = [synthesize(event, generator) for event in events]
    occupied = sum(len(s) for s in sounds) / RATE + GAP * (len(sounds) - 1)
    length = max(rng.uniform(1.0, 1.5), occupied + 0.04)
    # Sorted offsets within the free time keep the order of the events and the minimum gap between them.
    offsets = sorted(rng.uniform(0, length - occupied - 0.02) for _ in sounds)
    wave = generator.normal(0, noise, round(length * RATE)).astype(np.float32)
    start = 0.0
    for offset, sound in zip(offsets, sounds, strict=True):
        first = round((start + offset) * RATE)
        wave[first : first + len(sound)] += sound
        start += len(sound) / RATE + GAP
    return wave


def _event(rng: random.Random, name: str, level: tuple[float, float]) -> Event:
    """Sample pitch, duration and level of an event."""
    low, high = {"buzz": (90, 180), "knock": (90, 200), "bell": (700, 1500), "siren": (600, 1100)}.get(
        name, (500, 1800)
    )
    pitch = low * (high / low) ** rng.random()
    seconds = rng.uniform(0.22, 0.3) if name == "siren" else rng.uniform(0.1, 0.18)
    return Event(name, seconds, pitch, level=rng.uniform(*level))


QuestionSampler = Callable[[random.Random, tuple[float, float]], Question]
"""(rng, range of levels) -> a question with its events."""


def _which(rng: random.Random, level: tuple[float, float]) -> Question:
    name = rng.choice(NAMES)
    others = rng.sample([n for n in NAMES if n != name], 3)
    return Question([_event(rng, name, level)], "which sound?", name, [name, *others])


def _ordered(position: int, question: str) -> QuestionSampler:
    """A question about the sound at `position` among two or three; the options include all of them."""

    def sample_question(rng: random.Random, level: tuple[float, float]) -> Question:
        names = rng.sample(NAMES, 4)
        played = names[: rng.randint(2, 3)]
        return Question([_event(rng, n, level) for n in played], question, played[position], names)

    return sample_question


def _absent(rng: random.Random, level: tuple[float, float]) -> Question:
    names = rng.sample(NAMES, 4)
    return Question([_event(rng, n, level) for n in names[1:]], "which was not heard?", names[0], names)


def _count(rng: random.Random, level: tuple[float, float]) -> Question:
    n = rng.randint(1, 4)
    event = _event(rng, rng.choice(NAMES[:5]), level)
    return Question([event] * n, "how many sounds?", NUMBERS[n - 1], list(NUMBERS))


def _pitch(rng: random.Random, level: tuple[float, float]) -> Question:
    direction = rng.choice(DIRECTIONS)
    ratio = rng.uniform(1.6, 2.5)
    tone = Event(
        "beep",
        rng.uniform(0.3, 0.6),
        pitch=rng.uniform(600, 1200) * (ratio if direction == "falling" else 1),
        glide={"rising": ratio, "falling": 1 / ratio, "flat": 1.0}[direction],
        level=rng.uniform(*level),
    )
    return Question([tone], "rising or falling?", direction, list(DIRECTIONS))


def _higher(rng: random.Random, level: tuple[float, float]) -> Question:
    """Which of two tones is higher?"""
    low = rng.uniform(500, 900)
    pair = [low, low * rng.uniform(1.5, 2.2)]
    rng.shuffle(pair)
    tones = [Event("beep", rng.uniform(0.12, 0.2), p, level=rng.uniform(*level)) for p in pair]
    return Question(tones, "which tone was high?", "first" if pair[0] > pair[1] else "second", ["first", "second"])


_SAMPLERS: Mapping[str, QuestionSampler] = {
    "which": _which,
    "first": _ordered(0, "which came first?"),
    "last": _ordered(-1, "which came last?"),
    "absent": _absent,
    "count": _count,
    "pitch": _pitch,
    "higher": _higher,
}
QUESTION_TYPES = tuple(_SAMPLERS)
"""Name the only, first or last sound, the absent one, their number, the direction of the pitch, the higher tone."""


class Sounds(GeneratedQuestions):
    """Synthetic clips with a question each; question types alternate, and templates after each round of types.

    Truth and meta are those of `formats/choices.py`; `meta["thought"]` lists the sounds in order, as a chain of
    thought. `noise` and `level` are ranges of amplitudes, of the background noise and of the events. Raises ConfigError
    for an unknown question type.
    """

    name = "sounds"

    def __init__(
        self,
        split: Split,
        question_types: Sequence[str] = QUESTION_TYPES,
        n: int = 1024,
        seed: int = 0,
        templates: Sequence[str] = (TEMPLATE,),
        noise: tuple[float, float] = (0.0, 0.0),
        level: tuple[float, float] = (0.2, 0.8),
    ) -> None:
        super().__init__(split, n, seed, question_types, QUESTION_TYPES)
        self.templates, self.noise, self.level = tuple(templates), noise, level

    def question(self, index: int) -> tuple[Question, Wave]:
        """The question and the waveform of sample `index`."""
        rng = self.rng(index)
        question = _SAMPLERS[self.question_type(index)](rng, self.level)
        rng.shuffle(question.choices)
        return question, clip(question.events, rng, rng.uniform(*self.noise))

    def generate(self, index: int) -> Sample:
        question_type, (question, wave) = self.question_type(index), self.question(index)
        sounds = [event.name for event in question.events]
        if question_type == "count":
            sounds = list(dict.fromkeys(sounds))
        return choice_sample(
            self.uid(index),
            media((wave, RATE), "audio"),
            question.question,
            question.choices,
            question.answer,
            self.templates[index // len(self.question_types) % len(self.templates)],
            {"kind": question_type, "thought": " ".join(sounds)},
        )
