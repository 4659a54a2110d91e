"""Pairs of images before and after edits; the answer is the edits as function calls, in the style of TRANCE."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from mmpost.data.sources.base import check_names
from mmpost.data.worlds.shapes.scenes import (
    ASK,
    CELLS,
    MATERIALS,
    SIZES,
    Look,
    ShapeSource,
    Thing,
    View,
    image_part,
    look_of,
    names,
    place,
    split_of,
)
from mmpost.types import Part, Sample, Split

ATTRIBUTES = ("size", "color", "material", "shape", "position")
"""Attributes that edits change: change_size, change_color, ..."""

Edit = tuple[str, int, str]
"""Attribute, number of the object (from 1) and the new value."""


class Transformation(ShapeSource):
    """`n` pairs of images, the second rendered from `view`. The truth is the list of calls as text, in object order.

    The prompt lists the objects of the first image with their numbers and cells; `meta["cot"]` those of the second.
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
        """`attributes` are those that edits may change.

        Size and material appear in the text, and materials differ, only where an edit may change size or material.
        Raises ConfigError for an unknown attribute, look or split.
        """
        super().__init__(split, n, seed)
        check_names("attributes", attributes, ATTRIBUTES)
        self.attributes, self.look = tuple(attributes), look_of(look)
        self.view: View = view
        self.full = bool({"size", "material"} & set(attributes))
        self.uid_prefix = f"transformation-{look}-{view}"

    def problem(self, index: int) -> tuple[list[Thing], list[Thing], list[Edit]]:
        """The objects before and after the edits, and the edits; both scenes belong to the split."""
        rng = self.rng(index)
        while True:
            before = self.scene(lambda: place(rng, self.look, rng.randint(2, 3), MATERIALS[: 1 + self.full]))
            after, edits = self._edit(rng, before)
            if split_of(after) == self.split:
                return before, after, edits

    def generate(self, index: int) -> Sample:
        before, after, edits = self.problem(index)
        text = f"objects ({self._numbered(before)}). which calls lead from picture 1 to picture 2? {ASK}"
        prompt = (image_part(before, self.look), image_part(after, self.look, self.view), Part("text", text))
        calls = ", ".join(f"change_{attribute}({number}, '{value}')" for attribute, number, value in edits)
        meta = {"family": "transformation", "kind": str(len(edits)), "cot": self._numbered(after)}
        return Sample(self.uid(index), prompt, truth=calls, meta=meta)

    def _numbered(self, things: Sequence[Thing]) -> str:
        """List the objects with their numbers and cells."""
        return ";".join(f"{number}:{names([thing], self.full)}" for number, thing in enumerate(things, 1))

    def _edit(self, rng: random.Random, before: Sequence[Thing]) -> tuple[list[Thing], list[Edit]]:
        """Apply one or two edits to different objects or attributes; they are ordered by object and attribute."""
        candidates = [(number, attribute) for number in range(len(before)) for attribute in self.attributes]
        selected = sorted(
            rng.sample(candidates, min(len(candidates), rng.choice((1, 1, 2)))),
            key=lambda c: (c[0], ATTRIBUTES.index(c[1])),
        )
        after, edits = list(before), []
        for number, attribute in selected:
            occupied = {str(thing.position) for thing in after}
            value = rng.choice([v for v in _values(attribute, self.look, after[number]) if v not in occupied])
            new = int(value) if attribute == "position" else value
            after[number] = replace(after[number], **{attribute: new})
            edits.append((attribute, number + 1, value))
        return after, edits


def _values(attribute: str, look: Look, thing: Thing) -> list[str]:
    """The values to which the attribute can change."""
    cells = [str(n) for n in range(1, CELLS + 1)]
    known = {
        "size": SIZES,
        "color": look.colours,
        "material": MATERIALS,
        "shape": look.shapes,
        "position": cells,
    }
    return [value for value in known[attribute] if value != str(getattr(thing, attribute))]
