"""VLMEvalKit's exact matching (arXiv 2407.11691), by which MMBench (arXiv 2307.06281) and others are scored without a
language model: the option that a reply names.

The truth of a sample is the letter; its meta holds `options`, their texts in order. The strict rule is `right_option`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from mmpost.types import Reply, Sample

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_SAID = re.compile(r"answer\s+is\s+\**([A-D])", re.IGNORECASE)
_LAST = 4
"""Words at the end of a reply among which a letter counts."""
MISSING = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "-NaN", "-nan")
) | {"-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN"}
"""Cells that pandas reads as missing values: such an option is none, and such a reply becomes the text nan."""


def exact_matching(text: str, options: Sequence[str]) -> str | None:
    """The letter that VLMEvalKit reads without a language model; "Z" for a refusal, None where it would ask the model.

    A letter must be the only one in the reply, once . ( ) [ ] , : ; ! * # { } are blanks, and occur first among the
    last four words; else it is the one after "answer is", even if a word begins with it. A text must be the only one
    that occurs in a reply of at most twice the length of all options.
    """
    text = "nan" if text in MISSING else text
    pairs = zip(string.ascii_uppercase, options, strict=False)
    named = {letter: option for letter, option in pairs if option not in MISSING}
    if "Failed to obtain answer via API" not in text:
        if any(refusal in text for refusal in _REFUSALS):
            return "Z"
        words = text.translate(_MARKS).split()
        found = named.keys() & set(words)
        if len(found) == 1 and words.index(min(found)) >= len(words) - _LAST:
            return found.pop()
        if not found and "Z" in words:
            return "Z"
        said = _SAID.search(text)
        if said and said[1].upper() in named:
            return said[1].upper()
    text = text.lower()
    if len(text) > 2 * sum(map(len, named.values())):
        return None
    inside = [letter for letter, option in named.items() if option.lower() in text]
    return inside[0] if len(inside) == 1 else None


def mmbench(sample: Sample, reply: Reply) -> float:
    """1 if `exact_matching` reads the right letter, else 0."""
    return float(exact_matching(reply.text, sample.meta["options"]) == sample.truth)
