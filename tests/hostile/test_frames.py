"""Coordinates are never guessed: a model family is known, the user says how it writes them, or boxes are refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mmpost.errors import ConfigError
from mmpost.models.chat.prompts import coordinate_frame
from mmpost.types import CoordinateFrame

IMAGE = CoordinateFrame(640, 480)


def frame(family: str, setting: str = "auto") -> CoordinateFrame:
    return coordinate_frame(SimpleNamespace(model_type=family), None, 640, 480, setting)


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_5", "qwen3_5_moe", "glm4v", "glm4v_moe", "internvl"])
def test_families_that_write_thousandths(family: str) -> None:
    assert frame(family).convert(IMAGE, (500, 500)) == [320, 240]
    assert frame(family, "pixels").convert(IMAGE, (500, 500)) == [500, 500]


def test_an_unknown_family_refuses_boxes_until_it_is_set() -> None:
    unknown = frame("brand_new_vl")
    for a, b in ((unknown, IMAGE), (IMAGE, unknown)):
        with pytest.raises(ConfigError, match=r"'brand_new_vl' writes coordinates is not known; set model"):
            a.convert(b, (1, 1))
    assert frame("brand_new_vl", "thousand") == CoordinateFrame(1000, 1000)
    assert frame("brand_new_vl", "pixels").convert(IMAGE, (1, 2)) == [1, 2]
