"""Answers that are a number, with credit for a near one (Reason-RFT, arXiv 2503.20752: geometry)."""

from __future__ import annotations

import math

from mmpost.rewards.text import inside
from mmpost.types import Reply, Sample

ZERO = 1e-9
"""How far from a truth of zero an answer may be: shares of it mean nothing there."""


def math_tolerance(sample: Sample, reply: Reply, e1: float = 0.05, e2: float = 0.20) -> float | None:
    """1 within e1 of the truth, 0 beyond e2, half a cosine between; e1 and e2 are shares of the truth's size.

    With d = |answer - truth| and g = |truth|: 1 for d < e1 g, 0 for d > e2 g, else
    (cos(pi (d - e1 g) / ((e2 - e1) g)) + 1) / 2. Where the truth is 0, 1 iff |answer| <= 1e-9. Where either is no
    finite number (a choice, an expression), 1 iff the texts are equal. None for a truth that is not text or a number.
    """
    if not isinstance(sample.truth, str | int | float):
        return None
    said, truth = inside(reply.text), inside(str(sample.truth))
    found, wanted = number(said), number(truth)
    if found is None or wanted is None:
        return float(said == truth)
    off, size = abs(found - wanted), abs(wanted)
    if size == 0:
        return float(off <= ZERO)
    if off < e1 * size:
        return 1.0
    if off > e2 * size:
        return 0.0
    return 0.5 * (math.cos(math.pi * (off - e1 * size) / ((e2 - e1) * size)) + 1)


def number(text: str) -> float | None:
    """`text` as a finite number, else None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
