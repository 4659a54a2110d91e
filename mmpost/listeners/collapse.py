"""A warning while a run still goes on: the reward falls while the policy collapses."""

from __future__ import annotations

import math
import sys
from statistics import fmean, variance

from mmpost.core.display import short_number, visible
from mmpost.listeners.base import Listener, Metrics, finite_values

REWARD, ENTROPY = "reward/total", "entropy"
WINDOW = 10
"""Steps of a mean."""
ENTROPY_LEFT = 0.5
"""Fraction of the first entropy below which it has collapsed."""
STANDARD_ERRORS = 4.0
"""How far the reward must have fallen. Above the usual 2, since the best of many windows is partly luck."""


class CollapseWarning(Listener):
    """Says on stderr, once per stage, that the reward falls while the entropy collapses.

    All means are over 10 steps of the stage. Entropy collapses: the last mean is below half of the first one. The
    reward falls: its last mean is below the best earlier one by more than 4 standard errors of their difference, from
    the variances within both windows. The windows do not overlap, so nothing is said in the first 20 steps. Low
    entropy with a rising or steady reward is what training is for, and not mentioned.
    """

    def __init__(self) -> None:
        self._stage = ""
        self._warned = False
        self._rewards: list[float] = []
        self._entropies: list[float | None] = []

    def on_metrics(self, metrics: Metrics) -> None:
        values, stage = finite_values(metrics), str(metrics.get("stage", ""))
        if REWARD not in values:
            return
        if stage != self._stage:
            self._stage, self._warned, self._rewards, self._entropies = stage, False, [], []
        self._rewards.append(values[REWARD])
        self._entropies.append(values.get(ENTROPY))
        if not self._warned and (found := collapse(self._rewards, self._entropies)):
            self._warned = True
            where = f"[{visible(stage)}] step {int(metrics['step'])}"
            print(f"mmpost: {where}: {found}", file=sys.stderr)


def collapse(rewards: list[float], entropies: list[float | None]) -> str:
    """What is wrong with the rewards and entropies of a stage's steps; empty if nothing is (`CollapseWarning`).

    The entropy of a step without gradient is None.
    """
    first, last = ([value for value in part if value is not None] for part in (entropies[:WINDOW], entropies[-WINDOW:]))
    if len(rewards) < 2 * WINDOW or not first or not last or not fmean(last) < ENTROPY_LEFT * fmean(first):
        return ""
    now = rewards[-WINDOW:]
    windows = (rewards[i : i + WINDOW] for i in range(len(rewards) - 2 * WINDOW + 1))
    best = max(windows, key=fmean)
    error = math.sqrt((variance(best) + variance(now)) / WINDOW)
    if not fmean(best) - fmean(now) > STANDARD_ERRORS * error:
        return ""
    numbers = [short_number(value) for value in map(fmean, (best, now, first, last))]
    return (
        "the reward falls ({} to {}) while the entropy collapses ({} to {}), so the policy repeats itself and seldom "
        "recovers; stop and lower optim.lr, or set task.policy.beta (a KL penalty) or task.policy.entropy (a bonus)"
    ).format(*numbers)
