"""Answers that are one word or number, right or wrong (Reason-RFT, arXiv 2503.20752: counts, choices)."""

from __future__ import annotations

from mmpost.rewards.expression import same
from mmpost.rewards.text import answer, inside
from mmpost.types import Reply, Sample


def discrete_value(sample: Sample, reply: Reply) -> float | None:
    """1 where the text in the first answer tags is that of the truth but for white space around it, else 0.

    So "3.0" is not "3" inside tags. Only a reply without the tags is compared as mathematics. None for a sample whose
    truth is not text or a number.
    """
    if not isinstance(sample.truth, str | int | float):
        return None
    truth = inside(str(sample.truth))
    if answer(reply.text) is not None:
        return float(inside(reply.text) == truth)
    return float(same(reply.text, truth))
