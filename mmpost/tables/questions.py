"""Scores of answers to questions about a table (TRivia, arXiv 2512.01248).

TRivia rewards a recognised table by how well a language model answers questions from it. Its paper scores answers by
F1; its code compares characters instead of words, so that 63 for 36 is right. `token_f1` is the F1,
`released_character_f1` what the code does.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mmpost.errors import DataError
from mmpost.tables.grammar import END_OF_ROW
from mmpost.tables.html import normalized_html, write_html
from mmpost.tables.otsl import read_otsl

MAX_TABLE_CHARACTERS = 30_000
"""Longer tables are cut before they are shown to the language model, as in TRivia's code."""

NOT_ANSWERABLE = "not answerable"
"""The answer for a table that does not hold one, which scores 0."""

_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)%?")
_GROUPED = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d*)?%?")
_TOKEN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\s\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
_RELEASED_TOKEN = re.compile(r"[A-Za-z0-9]+(?:\.[0-9]+)?%?|.", re.DOTALL)


class Question(NamedTuple):
    """A question about a table, with its answer."""

    question: str
    answer: str


def _tokens(text: str) -> list[str]:
    """Words in lower case and Unicode NFKC, numbers without thousands separators; a Chinese character is a word."""
    words = unicodedata.normalize("NFKC", text).lower().split()
    words = [word.replace(",", "") if _GROUPED.fullmatch(word) else word for word in words]
    return [token for word in words for token in _TOKEN.findall(word)]


def _f1(predicted: Sequence[str], gold: Sequence[str]) -> float:
    """F1 of two multisets, 0 to 1; 0 if one is empty."""
    common = (Counter(predicted) & Counter(gold)).total()
    return 2 * common / (len(predicted) + len(gold)) if common else 0.0


def token_f1(predicted: str, gold: str) -> float:
    """F1 of the words of two answers, 0 to 1. For a gold answer that is a number, 1 if they are equal, else 0."""
    words, expected = _tokens(predicted), _tokens(gold)
    if len(expected) == 1 and _NUMBER.fullmatch(expected[0]):
        return float(words == expected)
    return _f1(words, expected)


def released_character_f1(predicted: str, gold: str) -> float:
    """F1 of characters, in any order, as in TRivia's code, which takes the characters of the segmented text for words.

    The code segments by jieba; here words and numbers of ASCII characters are segments, and any other character is one,
    so that texts in Chinese may score differently.
    """
    return _f1(" ".join(_RELEASED_TOKEN.findall(predicted)), " ".join(_RELEASED_TOKEN.findall(gold)))


def legal_tail(text: str) -> bool:
    """Whether a text does not look like OTSL that was cut off: it has no `<nl>`, or ends with one."""
    return END_OF_ROW not in text or text.rstrip().endswith(END_OF_ROW)


def recognised_table(text: str) -> str:
    """The table of a reply in the normal form of HTML.

    "" for a text without a table, and for one that is too large to read.
    """
    try:
        is_html = "<table" in text.lower()
        markup = text if is_html else write_html(read_otsl(text, extension="otsl-html", strict=False).table)
        return normalized_html(markup)
    except DataError:
        return ""


def shown_table(text: str) -> str:
    """What a language model sees of a `recognised_table`: the first `MAX_TABLE_CHARACTERS`."""
    return recognised_table(text)[:MAX_TABLE_CHARACTERS]


def question_pairs(value: object) -> list[Question]:
    """Questions and answers as TRivia's rows hold them, `[{"question": ..., "answer": ...}, ...]`.

    Raises DataError, with the key, for anything else.
    """
    advice = 'wanted questions [{"question": text, "answer": text}]'
    if not isinstance(value, list | tuple):
        raise DataError(f"{advice}, found {value!r:.80} in 'qa_pairs'; correct the row")
    questions = []
    for number, pair in enumerate(value):
        key = f"qa_pairs[{number}]"
        if not isinstance(pair, Mapping):
            raise DataError(f"{advice}, found {pair!r:.80} in {key!r}; correct the row")
        for name in ("question", "answer"):
            text = pair.get(name)
            is_text = isinstance(text, str) and text.strip()
            if not is_text and (name == "question" or isinstance(text, bool) or not isinstance(text, int | float)):
                raise DataError(f"{advice}, found {text!r:.80} in '{key}.{name}'; correct the row")
        questions.append(Question(pair["question"], str(pair["answer"])))
    return questions
