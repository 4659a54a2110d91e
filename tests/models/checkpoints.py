"""Which families a test runs for, and their checkpoints, written on demand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.models.families import build

TYPICAL = {"qwen2_5_vl", "qwen2_5_vl with video", "gemma3", "qwen2_audio"}
"""Images, videos, token types with a sliding window, sounds: what a mechanism is tried on before each commit."""


def typical_first(names: Iterable[str]) -> list[Any]:
    """All of `names` for parametrize; those not in TYPICAL are slow."""
    return [name if name in TYPICAL else pytest.param(name, marks=pytest.mark.slow) for name in names]


class Checkpoints(dict[str, Path]):
    """Folders by family ("qwen2_vl", "qwen2_vl with video"), each written when it is first asked for."""

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
