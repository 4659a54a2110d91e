"""Rewards for answers that are a set of function calls (Reason-RFT, arXiv 2503.20752: spatial transformation).

A call is (function, object, value), such as change_size(1, 'small'). Predicted calls are matched one to one with those
of the truth, in any order, and each pair scores by what the two calls have in common.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from mmpost.rewards.text import answer_or_text
from mmpost.types import Reply, Sample

PARTIAL = (1.0, 0.5, 0.5, 0.25)
"""The paper's weights for a pair with all three in common, function and object, function and value, or the function."""
FULL_ONLY = (1.0, 0.0, 0.0, 0.0)
"""The weights of the released training scripts, most likely those of the published 2B and 7B models."""
PENALTY = (1.0, -0.25, -0.25, -0.5)
"""The paper's ablation: partial matches cost."""

_CLOSEST = (1e6, 1e3, 1e3, 1.0)
"""Similarities for the matching when partial matches cost: by their weights, it would avoid the pairs to penalize."""

_PARENTHESES = re.compile(r"\(([^()]*)\)")
_OBJECT = re.compile(r"""['"]?(\w+)['"]?""")
_VALUE = re.compile(r"""['"]?([^'"]+)['"]?""")


class Call(NamedTuple):
    """One function call: an edit of the scene."""

    function: str
    object: str
    value: str


def read_calls(text: str) -> list[Call]:
    """All calls in `text`, in order and with repetitions; quotes are optional. Linear in the text."""
    calls, last = [], 0
    for parentheses in _PARENTHESES.finditer(text):
        before, last = text[last : parentheses.start()].rstrip(), parentheses.end()
        start = len(before)
        while start and (before[start - 1].isalnum() or before[start - 1] == "_"):
            start -= 1
        function = re.search(r"[A-Za-z_].*", before[start:], re.DOTALL)
        arguments = [argument.strip() for argument in parentheses[1].split(",")]
        if function is None or len(arguments) != 2:
            continue
        matches = _OBJECT.fullmatch(arguments[0]), _VALUE.fullmatch(arguments[1])
        if matches[0] and matches[1]:
            calls.append(Call(function[0], matches[0][1], matches[1][1]))
    return calls


def sequence_score(
    predicted: Sequence[Call], expected: Sequence[Call], weights: Sequence[float] = PARTIAL, repetition: bool = True
) -> float:
    """Sum of the matched pairs' weights, divided by the larger number of distinct calls; 0 if either side has none.

    `weights` are those of pairs with everything, function and object, function and value, or only the function in
    common; other pairs get 0. The matching maximizes the sum (Hungarian method), or with negative weights the
    similarity. `repetition` multiplies by the fraction of predicted calls that are distinct.
    """
    # Sorted, so that ties between matchings do not depend on the order of the calls.
    rows, columns = sorted(set(predicted)), sorted(set(expected))
    if not rows or not columns:
        return 0.0
    level = np.array([[_level(a, b) for b in columns] for a in rows])
    scores = np.array([*weights, 0.0])[level]
    rank = np.array([*(_CLOSEST if min(weights) < 0 else weights), 0.0])[level]
    total = scores[linear_sum_assignment(rank, maximize=True)].sum()
    distinct = len(rows) / len(predicted) if repetition else 1.0
    return float(total * distinct / max(len(rows), len(columns)))


def _level(a: Call, b: Call) -> int:
    """The index into the weights for what two calls have in common; 4 for nothing."""
    if a.function != b.function:
        return 4
    return 3 - 2 * (a.object == b.object) - (a.value == b.value)


def _score(sample: Sample, reply: Reply, weights: Sequence[float], repetition: bool = True) -> float | None:
    if not isinstance(sample.truth, str):
        return None
    expected = read_calls(answer_or_text(sample.truth))
    return sequence_score(read_calls(answer_or_text(reply.text)), expected, weights, repetition) if expected else None


def function_sequence(sample: Sample, reply: Reply) -> float | None:
    """The paper's reward, 0 to 1: matched calls with partial credit (PARTIAL), repetitions penalized.

    Reads the content of the first answer tags, or without tags the whole reply. None if the truth holds no call.
    """
    return _score(sample, reply, PARTIAL)


def function_sequence_full(sample: Sample, reply: Reply) -> float | None:
    """As `function_sequence`, but only exact matches count (FULL_ONLY); the behavior of the released code."""
    return _score(sample, reply, FULL_ONLY)


def function_sequence_penalty(sample: Sample, reply: Reply) -> float | None:
    """As `function_sequence`, but partial matches cost (PENALTY); -0.5 to 1."""
    return _score(sample, reply, PENALTY)


def function_sequence_metric(sample: Sample, reply: Reply) -> float | None:
    """The benchmark's metric, 0 to 1: partial credit, repetitions not penalized."""
    return _score(sample, reply, PARTIAL, repetition=False)
