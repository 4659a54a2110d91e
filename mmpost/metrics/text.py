"""Reference-free metrics of a text: length and repetition."""

from __future__ import annotations

import re

_WORD = re.compile(r"[a-z0-9]+")


def words(text: str) -> float:
    """Number of whitespace-separated words."""
    return float(len(text.split()))


def repetition(text: str, n: int = 4) -> float:
    """Fraction of the word n-grams that are repeats, 1 - distinct / all; 0 for texts of fewer than n words."""
    tokens = _WORD.findall(text.lower())
    ngrams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0
