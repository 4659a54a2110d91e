"""Preference pairs about digits, for the tiny models: a correct answer and a plausible wrong one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

from mmpost.data.sources.base import Wrapped
from mmpost.data.worlds.digits.scenes import Scenes, answer_item
from mmpost.types import Sample, Split


class PreferencePairs(Wrapped):
    """The samples of `Scenes` with a rejected answer: `meta["rival"]` has the form of the truth but is wrong.

    It marks another digit of the image or, where the image has no other, a random box.
    """

    def __init__(self, split: Split, question_types: Sequence[str], n: int, seed: int) -> None:
        self.scenes = Scenes(split, question_types, n=n, seed=seed)
        super().__init__(self.scenes)

    def sample(self, index: int) -> Sample:
        sample, scene = self.scenes[index], self.scenes.scene(index)
        rng = Random(f"rival {sample.uid}")
        others = [d for d in scene.digits if d not in scene.answer]
        if others:
            item = answer_item(rng.choice(others))
        else:
            size = self.scenes.size
            x, y = rng.randrange(size // 2), rng.randrange(size // 2)
            item = {"bbox_2d": [x, y, x + size // 4, y + size // 4], "point_2d": [x + size // 8, y + size // 8]}
        rejected: dict[str, Any] = {"boxes": [item["bbox_2d"]], "points": [item["point_2d"]]}
        return replace(sample, meta={**sample.meta, "rival": {**rejected, "frame": sample.truth["frame"]}})
