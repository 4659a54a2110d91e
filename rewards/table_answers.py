"""TableVQA-Bench's rules (arXiv 2404.19205) for answers about tables: those of its four parts, and strict ones.

Answers of VWTQ are lists of values (WikiTableQuestions, arXiv 1508.00305), those of VTabFact true or false, those of
FinTabNetQA amounts with units. The truth of a sample is a text, for VTabFact 1 or 0; its meta `part` names the rule.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mmpost.rewards.options import answer_span
from mmpost.types import Reply, Sample

NEAR = 1e-6
"""Numbers that differ by less are equal."""
_MARKS = "•♦†‡*#+"
_QUOTES, _DOUBLE_QUOTES, _DASHES = "\u2018\u2019\u00b4`", "\u201c\u201d", "\u2010\u2011\u2012\u2013\u2014\u2212"
_CHARACTERS = str.maketrans(
    {**dict.fromkeys(_QUOTES, "'"), **dict.fromkeys(_DOUBLE_QUOTES, '"'), **dict.fromkeys(_DASHES, "-")}
)
_UNIT = re.compile(
    r"\b(?:dollar|gallons|square feet|shares|mbtu|mbpd|mbbls|mmbtu|unit|gwh|year|mmcf|mile|mboe)s?\b", re.IGNORECASE
)
SCALES = {"thousand": "e3", "million": "e6", "billion": "e9"}
_SCALES = [(re.compile(rf"{blank}\b{word}\b"), value) for blank in (" ", "") for word, value in SCALES.items()]
_SCALES.append((re.compile(" ?%"), "e-2"))
_SEPARATED = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_ENUMERATED = re.compile(r"\s*(?:,(?:\s*and\b)?|\band\b|\n)\s*")


class Value(NamedTuple):
    """A value of a cell: its normal text, and the number or date that it is, if any."""

    text: str
    number: float | None = None
    """An int where it is whole."""
    date: tuple[int, int, int] | None = None
    """Year, month and day; -1 for what is not known."""

    def matches(self, other: Value) -> bool:
        """Whether the texts, numbers or dates of two values are equal."""
        if self.text == other.text:
            return True
        if self.number is not None and other.number is not None:
            return _differ_by_less(self.number, other.number)
        return self.date is not None and self.date == other.date


def _differ_by_less(a: float, b: float) -> bool:
    try:
        return abs(a - b) < NEAR
    except OverflowError:  # an integer that no float holds, and a fraction
        return False


def normal_text(text: str) -> str:
    """The form in which WikiTableQuestions compares texts.

    No diacritics; plain quotation marks and dashes; at the end no citations, marks of footnotes or details in
    parentheses; no quotation marks around it; no final full stop; single blanks; lower case.
    """
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if unicodedata.category(c) != "Mn")
    text = text.translate(_CHARACTERS).strip()
    end, before = len(text), -1
    while end != before:
        before = end
        end = _start_of_blanks(text, _start_of_citations(text, end))
        end = _start_of_blanks(text, _start_of_details(text, end))
        if end > 1 and text[0] == text[end - 1] == '"' and text.count('"', 0, end) == 2:
            text = text[1 : end - 1].strip()
            end = len(text)
    return " ".join(text[:end].removesuffix(".").split()).lower()


def _start_of_blanks(text: str, end: int) -> int:
    while end and text[end - 1].isspace():
        end -= 1
    return end


def _start_of_citations(text: str, end: int) -> int:
    """Where the marks of footnotes and brackets begin that end a text; at its start, only a number in brackets."""
    while end:
        if text[end - 1] in _MARKS:
            end -= 1
            continue
        start = text.find("[", text.rfind("]", 0, end - 1) + 1, end) if text[end - 1] == "]" else -1
        if start == 0 and not re.fullmatch(r"\d+", text[1 : end - 1]):
            start = text.find("[", 1, end)
        if start < 0:
            return end
        end = start
    return end


def _start_of_details(text: str, end: int) -> int:
    """Where the parentheses after a blank begin that end a text."""
    while end and text[end - 1] == ")":
        start = text.find(" (", text.rfind(")", 0, end - 1) + 1, end)
        if start <= 0:
            return end
        end = start
    return end


def value(text: str) -> Value:
    """The value of a text: a number or a date, if it is one as a whole."""
    amount = _number(text)
    if amount is None:
        date = _date(text)
        if date is None or date[1:] != (-1, -1):
            return Value(normal_text(text), date=date)
        amount = date[0]
    whole = round(amount)
    return Value(normal_text(text), int(amount) if _differ_by_less(amount, whole) else amount)


def _number(text: str) -> float | None:
    for kind in (int, float):
        try:
            amount = kind(text)
        except ValueError:
            continue
        return amount if isinstance(amount, int) or math.isfinite(amount) else None
    return None


def _date(text: str) -> tuple[int, int, int] | None:
    """A date such as 2004-02-29 or xx-02-xx."""
    parts = text.lower().split("-")
    if len(parts) != 3:
        return None
    unknown = (("xx", "xxxx"), ("xx",), ("xx",))
    try:
        year, month, day = (-1 if part in blank else int(part) for part, blank in zip(parts, unknown, strict=True))
    except ValueError:
        return None
    is_date = (month == -1 or 1 <= month <= 12) and (day == -1 or 1 <= day <= 31) and (year, month, day) != (-1, -1, -1)
    return (year, month, day) if is_date else None


def values(texts: Iterable[str]) -> list[Value]:
    """The different values of texts; of equal numbers or dates, the first."""
    found: dict[object, Value] = {}
    for text in texts:
        one = value(text)
        found.setdefault(("number", one.number) if one.number is not None else one.date or one.text, one)
    return list(found.values())


def _items(text: str) -> list[str]:
    """The items between vertical bars, with their escapes undone."""
    return [item.replace("\\n", "\n").replace("\\p", "|").replace("\\\\", "\\") for item in text.split("|")]


def same_values(truth: Sequence[Value], said: Sequence[Value]) -> bool:
    """Whether there are as many values, and each true one is among them."""
    return len(truth) == len(said) and all(any(one.matches(other) for other in said) for one in truth)


def amounts(text: str) -> tuple[float | str, float | str]:
    """FinTabNetQA's reading of a text: with its scale (thousand, million, billion, %), and without; texts if either is
    no number."""
    scaled = _UNIT.sub("", re.sub(r"[$(),]", "", normal_text(text)))
    bare = scaled
    for pattern, exponent in _SCALES:
        scaled, bare = pattern.sub(exponent, scaled), pattern.sub("", bare)
    try:
        return float(scaled), float(bare)
    except ValueError:
        return scaled, bare


def official_score(sample: Sample, text: str) -> float:
    """1 if a reply is right by the rule of its part, else 0.

    VWTQ: the values between vertical bars. VTabFact: true or false occurs in it, and not the other. FinTabNetQA: the
    amounts are equal, with or without the scale of either.
    """
    part, truth = sample.meta["part"], sample.truth
    if part == "vtabfact":
        said = {word for word in ("true", "false") if word in text.lower()}
        return float(said == {"true" if int(truth) else "false"})
    if part == "fintabnetqa":
        return float(any(a == b for a in amounts(text) for b in amounts(truth)))
    return float(same_values(values(_items(truth)), values(_items(text.replace("||", "|")))))


def strict_score(sample: Sample, answer: str | None) -> float:
    """1 if an answer is right, else 0; no answer is wrong.

    VWTQ: values may also be separated by commas, "and" or lines, and numbers have separators of thousands. VTabFact:
    one of the words true and false. FinTabNetQA: where both amounts have a scale, it must be the same.
    """
    if answer is None:
        return 0.0
    part, truth = sample.meta["part"], sample.truth
    if part == "vtabfact":
        return float(set(re.findall(r"\b(?:true|false)\b", answer.lower())) == {"true" if int(truth) else "false"})
    answer = answer.strip(" *")
    if part == "fintabnetqa":
        (said, bare), (right, right_bare) = amounts(answer), amounts(truth)
        has_scales = said != bare and right != right_bare
        return float(said == right or (not has_scales and bare == right_bare))
    accepted = values(map(_unseparated, _items(truth)))
    forms = [_items(re.sub(r"\|+", "|", answer)), _ENUMERATED.split(answer)]
    return float(any(same_values(accepted, values(map(_unseparated, form))) for form in forms))


def _unseparated(text: str) -> str:
    return text.replace(",", "") if _SEPARATED.fullmatch(text.strip()) else text


def tablevqa(sample: Sample, reply: Reply) -> float:
    """1 if the whole reply is right by the rule of its part of TableVQA-Bench, else 0."""
    return official_score(sample, reply.text)


def tablevqa_strict(sample: Sample, reply: Reply) -> float:
    """1 if the answer (in tags, a box or after "answer is", else the reply) is right, else 0."""
    return strict_score(sample, answer_span(reply.text) or None)
