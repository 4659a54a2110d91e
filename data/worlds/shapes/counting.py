"""Counting problems on rendered scenes in the style of CLEVR-Math: objects are removed or added; how many then?

Each sample has a chain of thought that is derived from the scene: first the counts, then the arithmetic.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from mmpost.data.sources.base import GeneratedQuestions
from mmpost.data.worlds.shapes.scenes import (
    ASK,
    Filter,
    Look,
    ShapeSource,
    Thing,
    image_part,
    look_of,
    place,
    random_filter,
)
from mmpost.types import Part, Sample, Split

QUESTION_TYPES = ("subtraction", "addition", "adversarial")
"""Remove objects and count the rest; add objects and count all; remove some objects and count others."""


class Problem(NamedTuple):
    """A question, its chain of thought and its answer."""

    question: str
    cot: str
    answer: int


class Counting(ShapeSource, GeneratedQuestions):
    """Counting problems in one look, with alternating types.

    The truth is the number as text; `meta["cot"]` is the chain of thought.
    """

    seed_prefix = "Counting"

    def __init__(
        self,
        split: Split = "train",
        question_types: Sequence[str] = QUESTION_TYPES,
        look: str = "plain",
        n: int = 1000,
        seed: int = 0,
    ) -> None:
        """Raises ConfigError for an unknown question type, look or split."""
        super().__init__(split, n, seed, question_types, QUESTION_TYPES)
        self.look, self.uid_prefix = look_of(look), f"counting-{look}"

    def problem(self, index: int) -> tuple[list[Thing], Problem]:
        """The scene and the problem of sample `index`, without rendering the image."""
        rng = self.rng(index)
        things = self.scene(lambda: place(rng, self.look, rng.randint(2, 7)))
        return things, _GENERATORS[self.question_type(index)](rng, self.look, things)

    def generate(self, index: int) -> Sample:
        things, problem = self.problem(index)
        prompt = (image_part(things, self.look), Part("text", f"{problem.question} {ASK}"))
        meta = {"family": "counting", "kind": self.question_type(index), "cot": problem.cot}
        return Sample(self.uid(index), prompt, truth=str(problem.answer), meta=meta)


def _subtraction(rng: random.Random, look: Look, things: Sequence[Thing]) -> Problem:
    removed = random_filter(rng, look, things)
    n, k = len(things), sum(map(removed, things))
    question = f"subtract all {removed.phrase}. how many objects are left?"
    return Problem(question, f"objects={n};{removed.phrase}={k};{n}-{k}={n - k}", n - k)


def _addition(rng: random.Random, look: Look, things: Sequence[Thing]) -> Problem:
    added = Filter(rng.choice(look.colours), rng.choice(look.shapes))
    n, k = len(things), rng.randint(1, 5)
    question = f"add {k} {added.phrase}. how many objects are there?"
    return Problem(question, f"objects={n};{n}+{k}={n + k}", n + k)


def _adversarial(rng: random.Random, look: Look, things: Sequence[Thing]) -> Problem:
    """The removed and the counted objects may overlap: one filter is a color, the other a shape."""
    first, second = rng.choice(things), rng.choice(things)
    removed, counted = Filter(first.color), Filter(shape=second.shape)
    if rng.random() < 0.5:
        removed, counted = Filter(shape=second.shape), Filter(first.color)
    both = Filter(first.color, second.shape)
    n, k = sum(map(counted, things)), sum(map(both, things))
    question = f"subtract all {removed.phrase}. how many {counted.phrase} are left?"
    return Problem(question, f"{counted.phrase}={n};{both.phrase}={k};{n}-{k}={n - k}", n - k)


_GENERATORS = {"subtraction": _subtraction, "addition": _addition, "adversarial": _adversarial}
