"""Rows and images for tests of dataset readers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from mmpost.data.media.media import Media
from mmpost.types import Part

USER = {"role": "user", "content": "Why?"}
ASSISTANT = {"role": "assistant", "content": "So."}
PROMPT = [("user", "Why?")]
"""What `roles_and_values` returns for the turn USER."""


def png(width: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, 5)).save(buffer, format="PNG")
    return buffer.getvalue()


def write_rows(folder: Path, *rows: Any, name: str = "data.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def roles_and_values(parts: Iterable[Part]) -> list[tuple[str, Any]]:
    """Role and value of each part; for images, the width."""
    return [(p.role, p.value.open().width if isinstance(p.value, Media) else p.value) for p in parts]
