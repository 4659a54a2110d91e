"""Exact-match reward for answers of one word or number (Reason-RFT, arXiv 2503.20752: counts, choices)."""

from __future__ import annotations

from mmpost.rewards.expression import equivalent
from mmpost.rewards.text import answer, answer_or_text
from mmpost.types import Reply, Sample


def discrete_value(sample: Sample, reply: Reply) -> float | None:
    """1 if the text in the first answer tags equals the truth, apart from surrounding whitespace, else 0.

    So inside tags "3.0" does not match "3"; only a reply without tags is compared mathematically. None if the truth is
    neither text nor a number.
    """
    if not isinstance(sample.truth, str | int | float):
        return None
    truth = answer_or_text(str(sample.truth))
    if answer(reply.text) is not None:
        return float(answer_or_text(reply.text) == truth)
    return float(equivalent(reply.text, truth))
