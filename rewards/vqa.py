"""Rewards for short answers: a word or two, or a number, inside answer tags.

Two answers agree if `normalise` maps both to the same text, or if both are equal numbers (`number`). The truth of a
sample is its answer, and `meta["task"]` its question type.
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
"""Number words; "none" is zero. Keys have no hyphens: `normalise` turns them into spaces."""

SPELLINGS = {"grey": "gray", "metre": "meter", "kilometre": "kilometer", "centre": "center", "colour": "color"}
UNITS = {
    "m": "meter", "km": "kilometer", "sqm": "square meter", "m2": "square meter",
    "ft": "foot", "feet": "foot", "px": "pixel", "%": "percent",
}  # fmt: skip
"""Unit abbreviations and their long forms."""

_ARTICLES = frozenset(("a", "an", "the"))
_NUMBER = re.compile(r"([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?)\s*(\D*)")


class Quantity(NamedTuple):
    """A number and the words after it: a unit, or the things that were counted; possibly empty."""

    value: float
    unit: str


def normalise(text: str) -> str:
    """The canonical form in which answers are compared.

    In this order: Unicode NFKC and case folding; surrounding quotes and final punctuation removed; hyphens and
    whitespace to single spaces; articles removed; words in the singular (`singular`); British to American spelling.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().strip()
    folded = folded.strip("\"'`*").rstrip(".!?,;:").strip("\"'`* ")
    words = [w for w in re.sub(r"(?<=\w)-(?=\w)", " ", folded).split() if w not in _ARTICLES]
    return " ".join(SPELLINGS.get(w, w) for w in map(singular, words))


def singular(word: str) -> str:
    """A word without its regular English plural ending; applied to both sides, so it need not be a real word."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and re.search(r"(?:s|x|z|ch|sh)es$", word):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def number(text: str) -> Quantity | None:
    """`text` as a number, in digits or words, with its unit; None if it does not begin with a number.

    Thousands may be separated by commas. The unit, or the thing counted, is in its long form and in the singular, and
    must not contain another number: "3 or 4" is None.
    """
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", normalise(text))
    words = plain.split()
    for size in (2, 1):
        if " ".join(words[:size]) in NUMBER_WORDS and words[:size]:
            plain = " ".join([str(NUMBER_WORDS[" ".join(words[:size])]), *words[size:]])
            break
    # m2 contains a digit itself, so it is expanded before the number is matched.
    match = _NUMBER.fullmatch(plain) or _NUMBER.fullmatch(re.sub(r"(?<=[\d ])m2$", " square meter", plain))
    if match is None:
        return None
    unit = " ".join(UNITS.get(word, word) for word in match[2].split())
    return None if set(unit.split()) & NUMBER_WORDS.keys() else Quantity(float(match[1]), unit)


class Rule(Settings):
    """How answers to one question type are compared."""

    match: Literal["auto", "text", "number", "words"] = "auto"
    """auto: as text or as numbers; text, number: only as that; words: the same words in any order."""
    tolerance: float = Field(default=0.0, ge=0)
    """Largest absolute error of a number that still scores; with 1, counts of 3 and 4 agree."""
    near: float = Field(default=1.0, ge=0, le=1)
    """Score of a number that is within the tolerance but not equal."""

    def score(self, answer: str, truth: str) -> float:
        """The agreement of an answer with the truth, 0 to 1."""
        if self.match == "words":
            return float(sorted(normalise(answer).split()) == sorted(normalise(truth).split()))
        if self.match != "number" and normalise(answer) == normalise(truth):
            return 1.0
        return 0.0 if self.match == "text" else self._score_numbers(number(answer), number(truth))

    def _score_numbers(self, predicted: Quantity | None, truth: Quantity | None) -> float:
        if predicted is None or truth is None or (predicted.unit and truth.unit and predicted.unit != truth.unit):
            return 0.0
        error = abs(predicted.value - truth.value)
        if error <= 1e-9 * max(1.0, abs(truth.value)):
            return 1.0
        return self.near if error <= self.tolerance else 0.0


def short_answer(sample: Sample, reply: Reply, rule: Rule | None = None) -> float | None:
    """The agreement of the answer in the tags with the truth by `rule` (default: `Rule()`), 0 to 1; 0 without tags.

    None if the truth is neither text nor a number.
    """
    if not isinstance(sample.truth, str | int | float):
        return None
    tagged = answer(reply.text)
    return 0.0 if tagged is None else (rule or Rule()).score(tagged, str(sample.truth))


def no_answer(sample: Sample, reply: Reply) -> float:
    """1 if the reply has no answer tags, else 0."""
    return float(answer(reply.text) is None)
