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

from mmpost.rewards.text import answer_or_text
from mmpost.types import Reply, Sample

_NUMBER = re.compile(r"[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3})?")
_LETTER = re.compile(r"\(([a-zA-Z])\)")
_QUOTED = re.compile(r'The answer is "(.*)"\.')
_MARKS = ("answer is", "letter is", "option is", "Answer:", "answer:")
_OPTION = re.compile(r"\(([A-Za-z])\)(?:[^A-Za-z(].*)?|([A-Z])(?:[.:),].*| \(.*)?", re.DOTALL)
"""An option by its letter, with its text or without; a letter without parentheses must be a capital."""
MAX_CHARACTERS = 20_000
"""Of a reply only its end of this length is searched."""


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
    span = answer_span(text[-MAX_CHARACTERS:])
    if choices is not None:
        letters = _LETTER.findall(span)
        return f"({letters[-1]})" if letters else span
    if kind == "list":
        return span[span.rfind("[") : span.rfind("]") + 1] or span
    numbers = numbers_in(span)
    return numbers[-1] if numbers else span


def answer_span(text: str) -> str:
    """The part of a reply that gives the answer: answer tags, a box, or the line after "answer is"; else all of it."""
    if "<answer>" in text:
        return answer_or_text(text[text.rindex("<answer>") :])
    box = text.rfind("\\boxed{")
    if box >= 0:
        return _braced(text, box + len("\\boxed"))
    place, mark = max((text.rfind(mark), mark) for mark in _MARKS)
    if place >= 0:
        return text[place + len(mark) :].lstrip(" :*\n").partition("\n")[0].strip()
    return text.strip()


def _braced(text: str, start: int) -> str:
    """What is between the brace at `start` and the one that closes it; the rest if none does."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[start + 1 : place]
    return text[start + 1 :]


def numbers_in(text: str) -> list[str]:
    """The numbers in a text, without separators of thousands."""
    return [found.replace(",", "") for found in _NUMBER.findall(text)]


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
    span, choices, kind = answer_span(text[-MAX_CHARACTERS:]), choices_of(sample), sample.meta["answer_type"]
    if choices is not None:
        return next(filter(None, (_option(line, choices) for line in (span, span.rpartition("\n")[2]))), None)
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


def _option(text: str, choices: Sequence[str]) -> str | None:
    """The option whose words or letter a text is."""
    plain = " ".join(text.split()).strip(" .*")
    texts = {" ".join(choice.split()).strip(" .").casefold(): choice for choice in reversed(choices)}
    if plain.casefold() in texts:
        return texts[plain.casefold()]
    letter = _OPTION.fullmatch(plain)
    number = ord((letter[1] or letter[2]).upper()) - ord("A") if letter else -1
    return choices[number] if 0 <= number < len(choices) else None


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
