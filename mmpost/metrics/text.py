"""Numbers about a text by itself."""

from __future__ import annotations

import re

_WORD = re.compile(r"[a-z0-9]+")


def words(text: str) -> float:
    """Words, parted by white space."""
    return float(len(text.split()))


def repetition(text: str, n: int = 4) -> float:
    """Share of the runs of n words that stood in the text before; 0 for a text shorter than that."""
    said = _WORD.findall(text.lower())
    runs = [tuple(said[i : i + n]) for i in range(len(said) - n + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
