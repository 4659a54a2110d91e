"""Uids and contents of synthetic samples are pinned: a renamed class or refactored generator must not change data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import pytest

from mmpost.data.worlds.aerial.questions import Aerial
from mmpost.data.worlds.chest.questions import Questions
from mmpost.data.worlds.chest.studies import SyntheticStudies
from mmpost.data.worlds.clips import Clips
from mmpost.data.worlds.digits.pairs import PreferencePairs
from mmpost.data.worlds.digits.scenes import Scenes
from mmpost.data.worlds.shapes.counting import Counting
from mmpost.data.worlds.shapes.figures import Figures
from mmpost.data.worlds.shapes.scenes import Shapes
from mmpost.data.worlds.shapes.transformation import Transformation
from mmpost.data.worlds.sounds import Sounds
from mmpost.data.worlds.stars.catalogue import Stars
from mmpost.data.worlds.tables.pictures import SmallTables, TablePictures
from mmpost.types import Sample

PINNED: dict[str, tuple[Sequence[Sample], str, str]] = {
    "aerial": (Aerial("val", n=16, seed=3), "aerial-val-3-1-shape", "2371e27ff0183935"),
    "clips": (Clips("val", n=16, seed=3), "clips-val-3-1", "ddec4ce1458fb8a2"),
    "counting": (Counting("val", n=16, seed=3), "counting-plain-val-3-1", "df60eab40d2e3559"),
    "digits": (Scenes("val", n=16, seed=3), "digits-val-3-1", "5a289f7683b5ba2d"),
    "figures": (Figures("val", n=16, seed=3), "figures-plain-val-3-1", "2986b5126ac653bd"),
    "preferences": (PreferencePairs("val", ("single",), 16, 3), "digits-val-3-1", "47dc74e2cac4cb12"),
    "shapes": (Shapes("val", n=16, seed=3), "shapes-val-3-1", "5901f68ece2c5484"),
    "small tables": (SmallTables("val", n=16, seed=3), "small-tables-val-3-1-office", "9289f8c9c7fd3a51"),
    "sounds": (Sounds("val", n=16, seed=3), "val-3-1", "19a2ca0450895878"),
    "stars": (Stars("val", n=16, seed=3), "val-3-1", "c03bf785f493dff1"),
    "tables": (TablePictures("val", n=16, seed=3), "tables-val-3-1-office", "05f3c807a7acf1be"),
    "transformation": (Transformation("val", n=16, seed=3), "transformation-plain-front-val-3-1", "e5d51696d9081c22"),
    "x-ray questions": (Questions("val", n=16, seed=3), "question-val-500003-1-presence", "43e9c53ba1ba5845"),
    "x-rays": (SyntheticStudies("val", n=16, seed=3), "phantom-val-3-1", "64782bdeb4d71e0a"),
}
"""Source, uid of its second sample, digest of text, truth and meta of its first four samples.

Digests leave out pixels and waveforms, whose last bits depend on the versions of PIL and numpy.
"""


@pytest.mark.parametrize("name", PINNED)
def test_samples_are_unchanged(name: str) -> None:
    source, uid, digest = PINNED[name]
    assert source[1].uid == uid
    texts = [
        [s.uid, [p.value for p in s.prompt if p.modality == "text"], s.truth, dict(s.meta), dict(s.columns)]
        for s in source[:4]
    ]
    assert hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:16] == digest
