"""Questions about digits with a right answer and a plausible wrong one: preference pairs for the tiny models."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmpost.data.sources.base import Indexed
from mmpost.data.worlds.digits.scenes import Scenes, item
from mmpost.types import Sample, Split


class Rivals(Indexed):
    """The scenes of `Scenes`; `meta["rival"]` is a truth of the same form about another digit of the picture.

    Where the picture has no other, it is a place where there is no digit at all.
    """

    def __init__(self, split: Split, kinds: Sequence[str], n: int, seed: int) -> None:
        self.scenes = Scenes(split, kinds, n=n, seed=seed)

    def __len__(self) -> int:
        return len(self.scenes)

    def sample(self, index: int) -> Sample:
        sample, scene = self.scenes[index], self.scenes.scene(index)
        rng = random.Random(f"rival {sample.uid}")
        others = [d for d in scene.digits if d not in scene.answer]
        if others:
            found = item(rng.choice(others))
        else:
            size = self.scenes.size
            x, y = rng.randrange(size // 2), rng.randrange(size // 2)
            found = {"bbox_2d": [x, y, x + size // 4, y + size // 4], "point_2d": [x + size // 8, y + size // 8]}
        rival: dict[str, Any] = {"boxes": [found["bbox_2d"]], "points": [found["point_2d"]]}
        return replace(sample, meta={**sample.meta, "rival": {**rival, "frame": sample.truth["frame"]}})
