"""The annotations of PubTabNet, where they are at hand."""

from __future__ import annotations

import html
import json
import os
from pathlib import Path

import pytest


def real_tables() -> list[str]:
    """HTML documents of 20 real tables; skips the test where the file is missing."""
    root = os.environ.get("MMPOST_TEST_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data")
    file = Path(root) / "pubtabnet" / "PubTabNet_Examples.jsonl"
    if not file.exists():
        print(f"no real data: {file} (set MMPOST_TEST_DATA)")
        pytest.skip(f"no real data: {file} (set MMPOST_TEST_DATA)")
    return [document(json.loads(line)["html"]) for line in file.read_text().splitlines()]


def document(annotation: dict) -> str:
    """The table of an annotation, in which the contents of cells are apart from the structure."""
    cells = iter(annotation["cells"])
    parts = []
    for token in annotation["structure"]["tokens"]:
        if token == "</td>":
            parts += [t if len(t) > 1 else html.escape(t, quote=False) for t in next(cells)["tokens"]]
        parts.append(token)
    return f"<html><body><table>{''.join(parts)}</table></body></html>"
