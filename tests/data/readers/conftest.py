"""Fixtures for tests of dataset readers."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three images, of widths 10, 11 and 12."""
    for width, name in enumerate(("a.png", "b.png", "c.png"), 10):
        Image.new("RGB", (width, 5)).save(tmp_path / name)
    return tmp_path
