"""BLINK's rule (arXiv 2404.12390): the option's letter in parentheses, as a word of its own.

Officially a language model reads replies without one; here they are wrong. The truth of a sample is the letter in
parentheses; its meta holds `options`, their texts in order.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmpost.rewards.options import named_letter
from mmpost.types import Reply, Sample

LETTERS = "ABCDE"


def blink_option(text: str, options: Sequence[str]) -> str | None:
    """The letter in parentheses that BLINK's script reads without its language model; None where it would ask that.

    The whole reply may be a letter, with or without parentheses. Else the only one between blanks counts: that of the
    last paragraph, if there is one, before that of the whole reply.
    """
    if text in LETTERS and len(text) == 1:
        return f"({text})"
    if text in all_letters(LETTERS):
        return text
    letters = all_letters(LETTERS[: len(options)])
    for part in (text.split("\n\n")[-1], text):
        found = letters & set(part.split())
        if len(found) == 1:
            return found.pop()
    return None


def all_letters(letters: str) -> set[str]:
    """The letters in parentheses."""
    return {f"({letter})" for letter in letters}


def named(text: str, options: Sequence[str]) -> str | None:
    """The letter, in parentheses, of the option that a reply names, by words or letter; never a guess."""
    letter = named_letter(text, options)
    return None if letter is None else f"({letter})"


def blink(sample: Sample, reply: Reply) -> float:
    """1 if `blink_option` reads the right letter, else 0."""
    return float(blink_option(reply.text, sample.meta["options"]) == sample.truth)


def blink_strict(sample: Sample, reply: Reply) -> float:
    """1 if the reply names the right option, by its letter or its words, else 0."""
    return float(named(reply.text, sample.meta["options"]) == sample.truth)
