"""Random windows: all starts occur (the released code misses the last), and media open with the chosen window."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

import mmpost.data.signals.modalities  # noqa: F401  (registers light curves; Crop itself knows no modality)
from mmpost.data.media.media import media
from mmpost.transforms.crop import Crop
from mmpost.types import Part, Sample
from tests.transforms.fakes import FakeContext


class RandomContext(FakeContext):
    """Its generator is shared by all calls of `rng`."""

    def rng(self, name: str) -> torch.Generator:
        self.generator = getattr(self, "generator", torch.Generator().manual_seed(0))
        return self.generator


def curve(n: int) -> Part:
    return Part(
        "light_curve",
        media(np.column_stack([np.arange(n, dtype=float), np.arange(n, dtype=float) ** 2]), "light_curve"),
    )


@pytest.mark.parametrize(("position", "starts"), [("random", {0, 1, 2}), ("released", {0, 1})])
def test_crop_windows(position: Literal["random", "released"], starts: set[int]) -> None:
    sample = Sample("a", (curve(6), Part("text", "said")))
    crop = Crop(modality="light_curve", length=4, position=position)
    context = RandomContext()
    chosen_starts = set()
    for _ in range(60):
        cropped = crop([sample], context)[0]
        assert cropped.prompt[1] == sample.prompt[1]
        start = dict(cropped.prompt[0].value.options)["start"]
        chosen_starts.add(start)
        times = cropped.prompt[0].value.open(length=4)[:, 0]
        assert times == pytest.approx((np.arange(4) + start) / 5)
    assert chosen_starts == starts


def test_short_media_start_at_zero() -> None:
    for n in (3, 4):
        cropped = Crop(modality="light_curve", length=4, position="released")(
            [Sample("a", (curve(n),))], RandomContext()
        )[0]
        assert dict(cropped.prompt[0].value.options) == {"start": 0}
        assert cropped.prompt[0].value.open(length=4)[:, -1].sum() == n
