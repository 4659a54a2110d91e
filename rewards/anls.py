"""Average normalized Levenshtein similarity (ANLS, arXiv 1907.00490), the metric of DocVQA and InfographicVQA.

The truth of a sample is a list of accepted answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from mmpost.rewards.options import answer_span
from mmpost.types import Reply, Sample

THRESHOLD = 0.5
"""Similarities below it count as a wrong answer, not as a misread one."""


def official_similarity(text: str, accepted: Sequence[str]) -> float:
    """The greatest similarity of a reply to an accepted answer, 0 to 1, as the challenge's own script computes it.

    The distance ignores case and blanks, and is divided by the length with them: blanks around a reply raise its score.
    A similarity of exactly 0.5 counts, which it does not by the paper's formula.
    """
    distances = []
    for answer in accepted:
        length = max(len(answer.upper()), len(text.upper()))
        distances.append(Levenshtein.distance(_plain(answer), _plain(text)) / length if length else 0.0)
    similarity = 1 - min(distances, default=1.0)
    return similarity if similarity >= THRESHOLD else 0.0


def strict_similarity(text: str | None, accepted: Sequence[str]) -> float:
    """The greatest similarity of an answer to an accepted one by the paper's formula, 0 to 1: 0 up to 0.5.

    Quotation marks around an answer and its full stop do not count.
    """
    if text is None:
        return 0.0
    forms = {_plain(text), _plain(text.strip(" \n\t.*\"'"))}
    similarity = max(
        (Levenshtein.normalized_similarity(_plain(answer), form) for answer in accepted for form in forms), default=0.0
    )
    return similarity if similarity > THRESHOLD else 0.0


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def anls(sample: Sample, reply: Reply) -> float:
    """The similarity of the whole reply to an accepted answer, 0 to 1, as the script of DocVQA computes it."""
    return official_similarity(reply.text, sample.truth)


def anls_strict(sample: Sample, reply: Reply) -> float:
    """The similarity of the answer (in tags, a box or after "answer is", else the reply) to an accepted one, 0 to 1."""
    return strict_similarity(answer_span(reply.text) or None, sample.truth)
