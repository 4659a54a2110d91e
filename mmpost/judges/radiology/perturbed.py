"""Reports changed on purpose, to measure a judge by: one that says the same, and one that says the opposite.

Neither knows the vocabulary of the rules that are measured: they are a few replacements of common words.
"""

from __future__ import annotations

import random
import re

from mmpost.judges.radiology.findings import sentences

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


def shuffled(text: str, seed: int) -> str:
    """The sentences in another order."""
    said = sentences(text)
    random.Random(seed).shuffle(said)
    return ". ".join(sentence.rstrip(".") for sentence in said) + "."


def negated(text: str) -> str:
    """Every sentence turned round: what is denied or called normal is there, and what is there is denied."""
    return ". ".join(_opposite(sentence.lower().rstrip(".")) for sentence in sentences(text)) + "."


def _opposite(sentence: str) -> str:
    for rules, all_ in ((_DENIALS, True), (_NORMAL, True), (_STATED, False)):
        turned = sentence
        for pattern, other in rules:
            turned = re.sub(pattern, other, turned)
            if turned != sentence and not all_:
                break
        if turned != sentence:
            return " ".join(turned.split())
    return sentence
