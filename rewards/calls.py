"""Answers that are function calls, in any order: change_size(1, 'small'), ... (Reason-RFT's transformation reward).

A call is (function, object, value). Predicted and wanted calls are matched one to one; a pair earns by what it shares.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from mmpost.rewards.text import inside
from mmpost.types import Reply, Sample

PARTIAL = (1.0, 0.5, 0.5, 0.25)
"""The paper's weights: all three, function and object, function and value, function alone."""
FULL_ONLY = (1.0, 0.0, 0.0, 0.0)
"""What the released training scripts ask for; the published 2B and 7B models were most likely trained with it."""
PENALTY = (1.0, -0.25, -0.25, -0.5)
"""The paper's ablation: near misses cost."""

_CLOSEST = (1e6, 1e3, 1e3, 1.0)
"""Which pairs come first where near misses cost: a matching that chose for itself would leave them out."""

_CALL = re.compile(r"""([A-Za-z_]\w*)\s*\(\s*['"]?(\w+)['"]?\s*,\s*['"]?([^'"(),]+?)['"]?\s*\)""")


class Call(NamedTuple):
    """One edit."""

    function: str
    object: str
    value: str


def read_calls(text: str) -> list[Call]:
    """The calls in `text`, in order, repeated ones included; values with or without quotes."""
    return [Call(*found.groups()) for found in _CALL.finditer(text)]


def sequence_score(
    found: Sequence[Call], wanted: Sequence[Call], weights: Sequence[float] = PARTIAL, repetition: bool = True
) -> float:
    """Sum of the matched pairs' weights over the larger number of calls, both counted without repeats.

    `weights` are those of pairs that share all, function and object, function and value, the function; others get 0.
    Pairs are those of largest sum (Hungarian method: the same whatever the order); with negative weights, the closest.
    `repetition` multiplies by the share of predicted calls that are no repeats. 0 where either side has no call.
    """
    said, truth = sorted(set(found)), sorted(set(wanted))
    if not said or not truth:
        return 0.0
    level = np.array([[_level(a, b) for b in truth] for a in said])
    earns = np.array([*weights, 0.0])[level]
    rank = np.array([*(_CLOSEST if min(weights) < 0 else weights), 0.0])[level]
    total = earns[linear_sum_assignment(rank, maximize=True)].sum()
    unique = len(said) / len(found) if repetition else 1.0
    return float(total * unique / max(len(said), len(truth)))


def _level(a: Call, b: Call) -> int:
    """The place among the weights of what two calls share; 4 for nothing."""
    if a.function != b.function:
        return 4
    return 3 - 2 * (a.object == b.object) - (a.value == b.value)


def _scored(sample: Sample, reply: Reply, weights: Sequence[float], repetition: bool = True) -> float | None:
    wanted = read_calls(inside(sample.truth)) if isinstance(sample.truth, str) else []
    return sequence_score(read_calls(inside(reply.text)), wanted, weights, repetition) if wanted else None


def function_sequence(sample: Sample, reply: Reply) -> float | None:
    """0 to 1: matched calls with partial credit (PARTIAL), repeats punished; the paper's reward.

    The answer is what stands in the first answer tags, over several lines too; without tags, the whole reply. None for
    a sample whose truth holds no call.
    """
    return _scored(sample, reply, PARTIAL)


def function_sequence_full(sample: Sample, reply: Reply) -> float | None:
    """As `function_sequence`, exact calls alone (FULL_ONLY): the released behaviour."""
    return _scored(sample, reply, FULL_ONLY)


def function_sequence_penalty(sample: Sample, reply: Reply) -> float | None:
    """-0.5 to 1: as `function_sequence`, near misses cost (PENALTY)."""
    return _scored(sample, reply, PENALTY)


def function_sequence_metric(sample: Sample, reply: Reply) -> float | None:
    """The benchmark's measure: partial credit, and repeats go unpunished."""
    return _scored(sample, reply, PARTIAL, repetition=False)
