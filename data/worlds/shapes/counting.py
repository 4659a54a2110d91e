"""Counting on rendered scenes, in the manner of CLEVR-Math: some objects are taken away or added; how many then?

Each sample brings a chain of thought that is read off the scene: counts first, then the sum.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from mmpost.data.worlds.shapes.scenes import ASK, Drawn, Filter, Look, Thing, look_of, picture, place, some
from mmpost.errors import ConfigError
from mmpost.types import Part, Sample, Split

KINDS = ("subtraction", "addition", "adversarial")
"""Take some away and count what is left; add some and count all; take some away and count some others."""


class Problem(NamedTuple):
    """A question, what is thought on the way, and the answer."""

    question: str
    cot: str
    answer: int


class Counting(Drawn):
    """`n` problems on scenes of one look; kinds take turns. The truth is the number as text; meta has the thought."""

    seed_prefix = "Counting"

    def __init__(
        self, split: Split = "train", kinds: Sequence[str] = KINDS, look: str = "plain", n: int = 1000, seed: int = 0
    ) -> None:
        """Raises ConfigError for an unknown kind, look or split."""
        super().__init__(split, n, seed)
        unknown = sorted(set(kinds) - set(KINDS))
        if unknown or not kinds:
            raise ConfigError(f"kinds must be some of {', '.join(KINDS)}; found {unknown or 'none'}; name those.")
        self.kinds, self.look, self.domain = tuple(kinds), look_of(look), look

    def uid(self, index: int) -> str:
        return f"counting-{self.domain}-{self.split}-{self.seed}-{index}"

    def problem(self, index: int) -> tuple[list[Thing], Problem]:
        """The scene and what is asked of it, without drawing it."""
        rng = self.rng(index)
        things = self.scene(lambda: place(rng, self.look, rng.randint(2, 7)))
        return things, _MAKERS[self.kinds[index % len(self.kinds)]](rng, self.look, things)

    def sample(self, index: int) -> Sample:
        things, problem = self.problem(index)
        prompt = (picture(things, self.look), Part("text", f"{problem.question} {ASK}"))
        kind = self.kinds[index % len(self.kinds)]
        meta = {"family": "counting", "kind": kind, "cot": problem.cot}
        return Sample(self.uid(index), prompt, truth=str(problem.answer), meta=meta)


def _subtraction(rng: random.Random, look: Look, things: Sequence[Thing]) -> Problem:
    gone = some(rng, look, things)
    n, k = len(things), sum(map(gone, things))
    question = f"subtract all {gone.words}. how many objects are left?"
    return Problem(question, f"objects={n};{gone.words}={k};{n}-{k}={n - k}", n - k)


def _addition(rng: random.Random, look: Look, things: Sequence[Thing]) -> Problem:
    more = Filter(rng.choice(look.colours), rng.choice(look.shapes))
    n, k = len(things), rng.randint(1, 5)
    question = f"add {k} {more.words}. how many objects are there?"
    return Problem(question, f"objects={n};{n}+{k}={n + k}", n + k)


def _adversarial(rng: random.Random, look: Look, things: Sequence[Thing]) -> Problem:
    """What is taken away and what is counted overlap in part: one is a colour, the other a shape."""
    seen, other = rng.choice(things), rng.choice(things)
    gone, kept = Filter(seen.color), Filter(shape=other.shape)
    if rng.random() < 0.5:
        gone, kept = Filter(shape=other.shape), Filter(seen.color)
    both = Filter(seen.color, other.shape)
    n, k = sum(map(kept, things)), sum(map(both, things))
    question = f"subtract all {gone.words}. how many {kept.words} are left?"
    return Problem(question, f"{kept.words}={n};{both.words}={k};{n}-{k}={n - k}", n - k)


_MAKERS = {"subtraction": _subtraction, "addition": _addition, "adversarial": _adversarial}
