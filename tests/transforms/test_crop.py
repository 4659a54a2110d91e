"""Random windows: every one is drawn but the last by the released code, and one opens what was drawn."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from mmpost.data.media.media import media
from mmpost.transforms.crop import Crop
from mmpost.types import Part, Sample
from tests.transforms.fakes import FakeContext


class Drawing(FakeContext):
    """Draws other numbers each time."""

    def rng(self, name: str) -> torch.Generator:
        self.generator = getattr(self, "generator", torch.Generator().manual_seed(0))
        return self.generator


def curve(n: int) -> Part:
    return Part(
        "light_curve",
        media(np.column_stack([np.arange(n, dtype=float), np.arange(n, dtype=float) ** 2]), "light_curve"),
    )


@pytest.mark.parametrize(("how", "starts"), [("random", {0, 1, 2}), ("released", {0, 1})])
def test_which_windows_are_drawn(how: Literal["random", "released"], starts: set[int]) -> None:
    sample = Sample("a", (curve(6), Part("text", "said")))
    crop = Crop(modality="light_curve", length=4, position=how)
    context = Drawing()
    seen = set()
    for _ in range(60):
        made = crop([sample], context)[0]
        assert made.prompt[1] == sample.prompt[1]
        start = dict(made.prompt[0].value.options)["start"]
        seen.add(start)
        times = made.prompt[0].value.open(length=4)[:, 0]
        assert times == pytest.approx((np.arange(4) + start) / 5)
    assert seen == starts


def test_short_media_start_at_their_beginning() -> None:
    for n in (3, 4):
        made = Crop(modality="light_curve", length=4, position="released")([Sample("a", (curve(n),))], Drawing())[0]
        assert dict(made.prompt[0].value.options) == {"start": 0}
        assert made.prompt[0].value.open(length=4)[:, -1].sum() == n
