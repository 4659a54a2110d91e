"""ChartQA's relaxed correctness (arXiv 2203.10244): numbers may be off by 5 %, words must be equal; and a strict one.

The truth of a sample is its answer as a text.
"""

from __future__ import annotations

import re

from mmpost.rewards.options import answer_span, numbers_in
from mmpost.types import Reply, Sample

TOLERANCE = 0.05
"""Of a number, relative to the truth."""
_YEAR = re.compile(r"1[5-9]\d\d|20\d\d")
_PLAIN_NUMBER = re.compile(r"[-+]?[$€£]?\s?\d[\d,]*(?:\.\d+)?\s?%?|[-+]?\.\d+\s?%?")


def official_number(text: str) -> float | None:
    """A text as the number that it is, by Python's rules; of a percentage, the hundredth part; None for other texts."""
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


def is_near(text: str, truth: str) -> float:
    """1 if a text is within 5 % of a truth that is a number other than 0, or equal up to case; else 0.

    Numbers are whole texts in the notation of Python, years are numbers, and 5% is 0.05.
    """
    value, target = official_number(text), official_number(truth)
    if value is not None and target:
        return float(abs(value - target) / abs(target) <= TOLERANCE)
    return float(text.lower() == truth.lower())


def is_right(answer: str | None, truth: str) -> float:
    """1 if an answer is right to a person who reads charts, else 0.

    A number in it, the only one, is within 5 % of a truth that is a number, whether either is written as a percentage;
    years must be equal. Words must be equal up to case, blanks, quotation marks and a full stop.
    """
    if answer is None:
        return 0.0
    if not _PLAIN_NUMBER.fullmatch(truth.strip()):
        return float(_plain(answer) == _plain(truth))
    found = numbers_in(answer)
    if len(found) != 1:
        return 0.0
    value, target = float(found[0]), float(numbers_in(truth)[0])
    if _YEAR.fullmatch(truth.strip()):
        return float(value == target)
    shares = ("%" in answer) - ("%" in truth)
    return float(any(abs(value / scale - target) <= TOLERANCE * abs(target) for scale in (1.0, 100.0**shares)))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .*\"'")


def relaxed_accuracy(sample: Sample, reply: Reply) -> float:
    """1 if the whole reply is within 5 % of the truth, or the same words up to case, else 0."""
    return is_near(reply.text, str(sample.truth))


def relaxed_accuracy_strict(sample: Sample, reply: Reply) -> float:
    """1 if the answer (in tags, a box or after "answer is", else the reply) is within 5 % of the truth, else 0.

    Years and words must be equal.
    """
    return is_right(answer_span(reply.text) or None, str(sample.truth))
