"""Rewards and measures for short answers: a word or two, or a number, inside answer tags.

Two answers are the same when `normalise` makes the same text of both, or both are numbers and equal (`number`). The
truth of a sample is its answer; the type of its question is `meta["task"]`.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal, NamedTuple

from pydantic import Field

from mmpost.config.settings import Settings
from mmpost.rewards.text import answer
from mmpost.types import Reply, Sample

_ONES = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
NUMBER_WORDS = {
    **{word: i for i, word in enumerate(_ONES)},
    **{word: 10 * i for i, word in enumerate(_TENS, 2)},
    **{f"{tens} {_ONES[i]}": 10 * t + i for t, tens in enumerate(_TENS, 2) for i in range(1, 10)},
    "hundred": 100,
    "one hundred": 100,
    "none": 0,
}
"""Numbers as words; none counts as zero. Compounds may be hyphenated."""

SPELLINGS = {"grey": "gray", "metre": "meter", "kilometre": "kilometer", "centre": "center", "colour": "color"}
UNITS = {
    "m": "meter", "km": "kilometer", "sqm": "square meter", "m2": "square meter",
    "ft": "foot", "feet": "foot", "px": "pixel", "%": "percent",
}  # fmt: skip
"""Short forms of units, and what they stand for."""

_ARTICLES = frozenset(("a", "an", "the"))
_NUMBER = re.compile(r"([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?)\s*(\D*)")


class Quantity(NamedTuple):
    """A number, and the words behind it (a unit, or what was counted); empty where there are none."""

    value: float
    unit: str


def normalise(text: str) -> str:
    """`text` in the one form in which answers are compared, in this order.

    Unicode's compatibility forms folded, lower case; quotes around it and the punctuation at its end off; hyphens and
    white space are one space; articles off; British spellings as American ones; each word in the singular (`singular`).
    """
    folded = unicodedata.normalize("NFKC", text).casefold().strip()
    folded = folded.strip("\"'`*").rstrip(".!?,;:").strip("\"'`* ")
    words = [w for w in re.sub(r"(?<=\w)-(?=\w)", " ", folded).split() if w not in _ARTICLES]
    return " ".join(SPELLINGS.get(w, w) for w in map(singular, words))


def singular(word: str) -> str:
    """A word without the plural that English forms by rule; both sides are folded, so that only likeness counts."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and re.search(r"(?:s|x|z|ch|sh)es$", word):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def number(text: str) -> Quantity | None:
    """`text` as a number in digits or words, with what follows it; None where it does not begin with one.

    Thousands may be parted by commas. What follows is a unit in its long form, or the thing counted, in the singular;
    it must not hold another number ("3 or 4" is none).
    """
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", normalise(text))
    words = plain.split()
    for size in (2, 1):
        if " ".join(words[:size]) in NUMBER_WORDS and words[:size]:
            plain = " ".join([str(NUMBER_WORDS[" ".join(words[:size])]), *words[size:]])
            break
    found = _NUMBER.fullmatch(plain) or _NUMBER.fullmatch(_spelt_out(plain))
    if found is None:
        return None
    unit = " ".join(UNITS.get(word, word) for word in found[2].split())
    return None if set(unit.split()) & NUMBER_WORDS.keys() else Quantity(float(found[1]), unit)


def _spelt_out(text: str) -> str:
    """Units that hold a digit themselves, in their long form."""
    return re.sub(r"(?<=[\d ])m2$", " square meter", text)


class Rule(Settings):
    """How the answers to one type of question are compared."""

    match: Literal["auto", "text", "number", "words"] = "auto"
    """auto: as text or as numbers; text or number: as that alone; words: the same words in any order."""
    tolerance: float = Field(default=0.0, ge=0)
    """How far a number may be off; a count of 3 and 4 agree at 1."""
    near: float = Field(default=1.0, ge=0, le=1)
    """What a number within the tolerance that is not equal gets."""

    def score(self, said: str, truth: str) -> float:
        """0 to 1: how far `said` is `truth`."""
        if self.match == "words":
            return float(sorted(normalise(said).split()) == sorted(normalise(truth).split()))
        if self.match != "number" and normalise(said) == normalise(truth):
            return 1.0
        return 0.0 if self.match == "text" else self._numbers(number(said), number(truth))

    def _numbers(self, said: Quantity | None, truth: Quantity | None) -> float:
        if said is None or truth is None or (said.unit and truth.unit and said.unit != truth.unit):
            return 0.0
        off = abs(said.value - truth.value)
        if off <= 1e-9 * max(1.0, abs(truth.value)):
            return 1.0
        return self.near if off <= self.tolerance else 0.0


def short_answer(sample: Sample, reply: Reply, rule: Rule | None = None) -> float | None:
    """How far the answer in the tags is the truth, by `rule` (by default as text or number); 0 without tags.

    None for a sample whose truth is not text or a number.
    """
    if not isinstance(sample.truth, str | int | float):
        return None
    said = answer(reply.text)
    return 0.0 if said is None else (rule or Rule()).score(said, str(sample.truth))


def no_answer(sample: Sample, reply: Reply) -> float:
    """1 where the reply has no answer tags."""
    return float(answer(reply.text) is None)
