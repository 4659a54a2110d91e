"""MathVista's rules (arXiv 2310.02255): the answer in a reply, its normal form, and a strict reading.

Officially a language model extracts the answer from replies that rules do not understand. `extracted_answer` takes
further rules in its place, so that its scores are near the official ones, not equal; from extractions that come with
the predictions, `normal_answer` computes the official score.

The truth of a sample is the answer as a text; its meta holds `choices` (or None), `answer_type` (text, integer, float
or list) and `precision` (decimals of a float).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from mmpost.rewards.options import answer_span, named_option, numbers_in
from mmpost.types import Reply, Sample

_LETTER = re.compile(r"\(([a-zA-Z])\)")
_QUOTED = re.compile(r'The answer is "(.*)"\.')


def choices_of(sample: Sample) -> Sequence[str] | None:
    """The options of a multiple-choice question; None for a free answer."""
    return sample.meta.get("choices")


def extracted_answer(sample: Sample, text: str) -> str:
    """The answer in a reply, as MathVista's `extract_answer`, with rules in place of its language model.

    The rules look for the last of: answer tags, a box (\\\\boxed), what follows "answer is" on its line; in that, or in
    the whole reply, for the last letter in parentheses (multiple choice) or the last number.
    """
    choices, kind = choices_of(sample), sample.meta["answer_type"]
    if text == "" or (choices is not None and text in choices):
        return text
    try:
        if kind == "integer":
            return str(int(text))
        if kind == "float":
            return str(float(text))
    except ValueError:
        pass
    quoted = _QUOTED.search(text)
    if quoted:
        return quoted[1]
    span = answer_span(text)
    if choices is not None:
        letters = _LETTER.findall(span)
        return f"({letters[-1]})" if letters else span
    if kind == "list":
        return span[span.rfind("[") : span.rfind("]") + 1] or span
    numbers = numbers_in(span)
    return numbers[-1] if numbers else span


def normal_answer(sample: Sample, extraction: str) -> str | None:
    """The official normal form of an extracted answer; None if it has none.

    Multiple choice: the option of the first letter in parentheses, or of a letter alone, else the option with the
    smallest Levenshtein distance, even to nothing. Integers are cut off, floats rounded to the question's decimals.
    """
    choices, kind = choices_of(sample), sample.meta["answer_type"]
    if choices is not None:
        extraction = extraction.strip()
        letters = _LETTER.findall(extraction)
        if letters:
            extraction = letters[0].upper()
        if len(extraction) == 1 and 0 <= ord(extraction) - ord("A") < len(choices):
            return choices[ord(extraction) - ord("A")]
        distances = [Levenshtein.distance(extraction, choice) for choice in choices]
        return choices[distances.index(min(distances))]
    try:
        if kind == "integer":
            return str(int(float(extraction)))
        if kind == "float":
            return str(round(float(extraction), int(sample.meta["precision"])))
    except (ValueError, OverflowError):
        return None
    return extraction


def strict_answer(sample: Sample, text: str) -> str | None:
    """What a reply answers without free credit: an option named by its letter or its words, or a number; else None.

    A number that is no integer does not answer a question for one.
    """
    choices, kind = choices_of(sample), sample.meta["answer_type"]
    if choices is not None:
        option = named_option(text, choices)
        return None if option is None else choices[option]
    span = answer_span(text)
    if kind == "list":
        found = re.findall(r"\[[^\[\]]*\]", span)
        return str([float(n) for n in numbers_in(found[-1])]) if found else None
    numbers = numbers_in(span)
    if not numbers:
        return None
    value = float(numbers[-1])
    if kind == "float":
        return str(round(value, int(sample.meta["precision"])))
    return str(int(value)) if value.is_integer() else numbers[-1]


def strict_score(sample: Sample, reading: str | None) -> float:
    """1 if a `strict_answer` is the truth; numbers of a list are compared as numbers."""
    truth = str(sample.truth)
    if sample.meta["answer_type"] == "list":
        truth = str([float(n) for n in numbers_in(truth)])
    return float(reading == truth)


def mathvista(sample: Sample, reply: Reply) -> float:
    """1 if the reply's answer, by rules, has the normal form that is the truth, else 0."""
    return float(normal_answer(sample, extracted_answer(sample, reply.text)) == sample.truth)


def mathvista_strict(sample: Sample, reply: Reply) -> float:
    """1 if `strict_answer` of the reply is the truth, else 0."""
    return strict_score(sample, strict_answer(sample, reply.text))
