"""MMMU's rules (arXiv 2311.16502): the letter or the free answer in a reply, officially and strictly.

The truth of a sample is the letter, or a list of accepted answers; its meta holds `options`, None for a free answer.
"""

from __future__ import annotations

import re

from mmpost.rewards.options import answer_span, named_letter, numbers_in
from mmpost.types import Reply, Sample

ENDS = (",", ".", "!", "?", ";", ":", "'")
_KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
LONG = 5
"""Words of a reply from which on it may name an option by its text."""


def letters(sample: Sample) -> str:
    """The letters of a question's options."""
    return "".join(chr(ord("A") + i) for i in range(len(sample.meta["options"])))


def mmmu_letter(sample: Sample, text: str) -> str | None:
    """The letter that MMMU's script reads; None where it takes one at random.

    The last of those in parentheses, else of those between blanks, else, in more than five words, of the options'
    texts. Marks at the ends are removed kind by kind, blanks never, so that "B.?" and "B. " are no letter.
    """
    for mark in ENDS:
        text = text.strip(mark)
    text, options = f" {text} ", sample.meta["options"]
    for form in ("({})", " {} "):
        found = {letter: text.rfind(form.format(letter)) for letter in letters(sample)}
        if max(found.values()) >= 0:
            return max(found, key=found.__getitem__)
    if len(text.split()) > LONG:
        places = {letter: text.lower().rfind(o.lower()) for letter, o in zip(letters(sample), options, strict=True)}
        if max(places.values()) >= 0:
            return max(places, key=places.__getitem__)
    return None


def mmmu_values(text: str) -> set[str | float]:
    """The texts and numbers that MMMU's script takes a free answer to give: the ends of lines after words such as "is"
    and "answer", else the whole reply, and all numbers in them."""
    lines = text.strip().strip(".").lower().split("\n")
    keys = []
    for number, line in enumerate(lines, 1):
        marks = (*_KEYS, "=") if number == len(lines) else _KEYS
        ends = [line.split(mark)[-1].strip() for mark in marks if mark in line]
        shortest = ""
        for end in ends:
            if not shortest or len(end) < len(shortest):
                shortest = end
        if shortest and shortest not in ENDS:
            keys.append(shortest)
    keys = keys or [text]
    found = [*keys, *(number for key in keys for pattern in _NUMBERS for number in pattern.findall(key))]
    return {value for each in found for value in normal_values(each)}


def normal_values(text: str) -> list[str | float]:
    """A number, rounded to two decimals; or the text in lower case, a single character with a blank on either side."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def mmmu_open(sample: Sample, values: set[str | float]) -> float:
    """1 if one of the values has an accepted text in it, or is an accepted number."""
    accepted = [value for answer in sample.truth for value in normal_values(answer)]
    texts = [value for value in accepted if isinstance(value, str)]
    return float(
        any(any(t in value for t in texts) if isinstance(value, str) else value in accepted for value in values)
    )


def strict_reading(sample: Sample, text: str) -> str | None:
    """The letter of the option that a reply names, or the text of its free answer; None without any."""
    if sample.meta["options"] is None:
        return answer_span(text) or None
    return named_letter(text, sample.meta["options"])


def strict_score(sample: Sample, reading: str | None) -> float:
    """1 if the reading is the truth: a letter, one of the accepted texts, or a last number that is an accepted one."""
    if reading is None or sample.meta["options"] is not None:
        return float(reading == sample.truth)
    accepted = {value for answer in sample.truth for value in normal_values(answer)}
    last = [value for number in numbers_in(reading)[-1:] for value in normal_values(number)]
    return float(bool(accepted & {*normal_values(reading.strip(" .")), *last}))


def mmmu_strict(sample: Sample, reply: Reply) -> float:
    """1 if the reply gives the right letter or one of the accepted answers, else 0."""
    return strict_score(sample, strict_reading(sample, reply.text))
