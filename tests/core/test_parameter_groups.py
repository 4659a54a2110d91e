"""A parameter belongs to the part with the longest matching prefix."""

from __future__ import annotations

import pytest

from mmpost.core.parameter_groups import owner

PARTS = {"vision": ["model.visual"], "projector": ["model.visual.merger"], "head": ["lm_head"]}


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.visual.merger.0.weight", "projector"),
        ("model.visual.merger", "projector"),
        ("model.visual.blocks.0.weight", "vision"),
        ("model.visual_other.weight", "other"),
        ("lm_head.weight", "head"),
        ("", "other"),
    ],
)
def test_the_longest_prefix_wins_and_ends_at_a_dot(name: str, part: str) -> None:
    assert owner(name, PARTS) == part
