"""Perturbed reports to test a judge with: one has the same meaning as the original, the other the opposite.

To keep the test independent, neither uses the vocabulary of the rule-based judge, only a few replacements of common
words.
"""

from __future__ import annotations

import random
import re

from mmpost.judges.radiology.findings import split_sentences

_DENIALS = (
    (r"\b(there (?:is|are)) no(?: evidence of)?\b", r"\1"),
    (r"\bno evidence (?:of|for)\b", "evidence of"),
    (r"\bno\b", ""),
    (r"\bwithout(?: evidence of)?\b", "with"),
    (r"\bnegative for\b", "positive for"),
    (r"\b(?:free|clear) of\b", "full of"),
    (r"\bnot\b", ""),
)
_NORMAL = (
    (r"\b(?:within normal limits|normal in size and contour|normal in size|normal|unremarkable)\b", "enlarged"),
    (r"\bclear\b", "opacified"),
    (r"\bsharp\b", "blunted"),
    (r"\bintact\b", "fractured"),
)
_STATED = (
    (r"\bthere (is|are)(?: an?)?\b", r"there \1 no"),
    (r"\b(is|are|appears?|remains?) ((?:\w+ly )?(?:enlarged|prominent|widened|tortuous|blunted))", r"\1 not \2"),
    (r"^(?:an? |the )?", "no "),
)


def shuffle_sentences(text: str, seed: int) -> str:
    """The report with its sentences in a random order."""
    sentences = split_sentences(text)
    random.Random(seed).shuffle(sentences)
    return ". ".join(sentence.rstrip(".") for sentence in sentences) + "."


def negate_sentences(text: str) -> str:
    """The report with each sentence negated: findings that it denies or calls normal are asserted, and vice versa."""
    return ". ".join(_negate(sentence.lower().rstrip(".")) for sentence in split_sentences(text)) + "."


def _negate(sentence: str) -> str:
    """Applies the first group of rules that changes anything: mixing groups would undo each other's negations."""
    for rules, apply_all in ((_DENIALS, True), (_NORMAL, True), (_STATED, False)):
        negated = sentence
        for pattern, replacement in rules:
            negated = re.sub(pattern, replacement, negated)
            if negated != sentence and not apply_all:
                break
        if negated != sentence:
            return " ".join(negated.split())
    return sentence
