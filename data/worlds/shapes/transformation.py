"""Two pictures of a scene, before and after some edits: which calls lead from one to the other? After TRANCE."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from mmpost.data.worlds.shapes.scenes import (
    ASK,
    CELLS,
    MATERIALS,
    SIZES,
    Drawn,
    Look,
    Thing,
    View,
    look_of,
    names,
    picture,
    place,
    split_of,
)
from mmpost.errors import ConfigError
from mmpost.types import Part, Sample, Split

ATTRIBUTES = ("size", "color", "material", "shape", "position")
"""What an edit changes: change_size, change_color, ..."""

Edit = tuple[str, int, str]
"""Attribute, number of the object (from 1), its new value."""


class Transformation(Drawn):
    """`n` pairs of pictures; the one after is taken from `view`. The truth is the calls, by object, as text.

    The prompt lists the objects before with their numbers and cells; `meta["cot"]` lists them after.
    """

    seed_prefix = "Transformation"

    def __init__(
        self,
        split: Split = "train",
        attributes: Sequence[str] = ("color", "shape", "position"),
        look: str = "plain",
        view: View = "front",
        n: int = 1000,
        seed: int = 0,
    ) -> None:
        """`attributes` that edits may change; size and material are told, and materials differ, only where they may.

        Raises ConfigError for one that is unknown, or an unknown look.
        """
        super().__init__(split, n, seed)
        unknown = sorted(set(attributes) - set(ATTRIBUTES))
        if unknown or not attributes:
            known = ", ".join(ATTRIBUTES)
            raise ConfigError(f"attributes must be some of {known}; found {unknown or 'none'}; name only those.")
        self.attributes, self.look, self.domain = tuple(attributes), look_of(look), look
        self.view: View = view
        self.full = bool({"size", "material"} & set(attributes))

    def uid(self, index: int) -> str:
        return f"transformation-{self.domain}-{self.view}-{self.split}-{self.seed}-{index}"

    def problem(self, index: int) -> tuple[list[Thing], list[Thing], list[Edit]]:
        """The objects before, the objects after, and what was done; both scenes belong to the split."""
        rng = self.rng(index)
        while True:
            before = self.scene(lambda: place(rng, self.look, rng.randint(2, 3), MATERIALS[: 1 + self.full]))
            after, edits = self._edited(rng, before)
            if split_of(after) == self.split:
                return before, after, edits

    def sample(self, index: int) -> Sample:
        before, after, edits = self.problem(index)
        text = f"objects ({self._numbered(before)}). which calls lead from picture 1 to picture 2? {ASK}"
        prompt = (picture(before, self.look), picture(after, self.look, self.view), Part("text", text))
        calls = ", ".join(f"change_{attribute}({number}, '{value}')" for attribute, number, value in edits)
        meta = {"family": "transformation", "kind": str(len(edits)), "cot": self._numbered(after)}
        return Sample(self.uid(index), prompt, truth=calls, meta=meta)

    def _numbered(self, things: Sequence[Thing]) -> str:
        """Objects with their numbers, then each with its cell."""
        return ";".join(f"{number}:{names([thing], self.full)}" for number, thing in enumerate(things, 1))

    def _edited(self, rng: random.Random, before: Sequence[Thing]) -> tuple[list[Thing], list[Edit]]:
        """One or two edits, of different objects or attributes; they are listed by object and attribute."""
        chances = [(number, attribute) for number in range(len(before)) for attribute in self.attributes]
        picked = sorted(
            rng.sample(chances, min(len(chances), rng.choice((1, 1, 2)))), key=lambda c: (c[0], ATTRIBUTES.index(c[1]))
        )
        after, edits = list(before), []
        for number, attribute in picked:
            taken = {str(thing.position) for thing in after}
            value = rng.choice([v for v in _values(attribute, self.look, after[number]) if v not in taken])
            changed = int(value) if attribute == "position" else value
            after[number] = replace(after[number], **{attribute: changed})
            edits.append((attribute, number + 1, value))
        return after, edits


def _values(attribute: str, look: Look, thing: Thing) -> list[str]:
    """What the attribute could become."""
    cells = [str(n) for n in range(1, CELLS + 1)]
    known = {
        "size": SIZES,
        "color": look.colours,
        "material": MATERIALS,
        "shape": look.shapes,
        "position": cells,
    }
    return [value for value in known[attribute] if value != str(getattr(thing, attribute))]
