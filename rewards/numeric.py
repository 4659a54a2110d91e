"""Numeric answers with partial credit for near misses (Reason-RFT, arXiv 2503.20752: geometry)."""

from __future__ import annotations

import math

from mmpost.rewards.text import answer_or_text
from mmpost.types import Reply, Sample

ZERO = 1e-9
"""Absolute tolerance at a truth of 0, where a relative one has no meaning."""


def math_tolerance(sample: Sample, reply: Reply, e1: float = 0.05, e2: float = 0.20) -> float | None:
    """1 within a relative error of e1, 0 beyond e2, and a half cosine in between.

    With d = |answer - truth| and g = |truth|: 1 for d < e1 g, 0 for d > e2 g, else
    (cos(pi (d - e1 g) / ((e2 - e1) g)) + 1) / 2. If the truth is 0: 1 if |answer| <= 1e-9, else 0. If either is not a
    finite number (a choice, an expression): 1 if the texts are equal, else 0. None if the truth is neither text nor a
    number.
    """
    if not isinstance(sample.truth, str | int | float):
        return None
    answer, truth = answer_or_text(reply.text), answer_or_text(str(sample.truth))
    value, target = number(answer), number(truth)
    if value is None or target is None:
        return float(answer == truth)
    error, size = abs(value - target), abs(target)
    if size == 0:
        return float(error <= ZERO)
    if error < e1 * size:
        return 1.0
    if error > e2 * size:
        return 0.0
    return 0.5 * (math.cos(math.pi * (error - e1 * size) / ((e2 - e1) * size)) + 1)


def number(text: str) -> float | None:
    """`text` as a finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
