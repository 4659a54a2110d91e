"""Tiny checkpoints of the model families, written on demand, and the typical families."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.models.families import build

TYPICAL = {"qwen2_5_vl", "qwen2_5_vl with video", "gemma3", "qwen2_audio"}
"""Cases that run before each commit: images, videos, token types with a sliding window, audio."""


def typical_first(names: Iterable[str]) -> list[Any]:
    """`names` as parameters for pytest; those not in TYPICAL are marked slow."""
    return [name if name in TYPICAL else pytest.param(name, marks=pytest.mark.slow) for name in names]


class Checkpoints(dict[str, Path]):
    """Checkpoint folders by case ("qwen2_vl", "qwen2_vl with video"), each written on first access."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root

    def __missing__(self, case: str) -> Path:
        name = case.split()[0]
        if name not in self:
            build(name, self.root / name)
            self[name] = self.root / name
        self[case] = self[name]
        return self[case]
