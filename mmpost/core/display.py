"""Texts of users and models on a screen: shown rather than obeyed, no longer than a screen. Does not import torch."""

from __future__ import annotations

import re
import unicodedata

UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories of characters that command a terminal or reorder a line instead of being seen."""
MAX_LINES, MAX_CHARACTERS = 20, 2000
"""The longest message that fits a screen."""
ZERO = 5e-8
"""Smaller numbers are rounding errors of fp32 and read as 0."""


def visible(text: str) -> str:
    """`text` with a symbol for each control, format and bidirectional character, except for newlines and tabs.

    >>> visible("a\\x1b[31m \\u202eb")
    'a␛[31m <U+202E>b'
    """
    return re.sub(r"[^\n\t -~]", _symbol, text)


def _symbol(match: re.Match[str]) -> str:
    character, code = match[0], ord(match[0])
    if unicodedata.category(character) not in UNSEEN:
        return character
    if code < 160:
        return chr(0x2400 + code) if code < 32 else "\u2421" if code == 127 else "\ufffd"
    return f"<U+{code:04X}>"


def fitted(text: str) -> str:
    """`text` without its middle if it is longer than a screen: its end says what to do."""
    lines = text.split("\n")
    if len(lines) > MAX_LINES:
        left_out = len(lines) - MAX_LINES + 1
        text = "\n".join([*lines[: MAX_LINES - 2], f"... ({left_out} more lines)", lines[-1]])
    if len(text) > MAX_CHARACTERS:
        half = MAX_CHARACTERS // 2
        text = f"{text[:half]} ... ({len(text) - 2 * half} more characters) ... {text[-half:]}"
    return text


def short_number(value: float) -> str:
    """Three digits of a metric; 0 for what is only a rounding error."""
    if abs(value) < ZERO:
        return "0"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
