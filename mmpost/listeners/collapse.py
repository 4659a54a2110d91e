"""A warning while a run still goes on: the reward falls while the policy collapses."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, variance
from typing import Any

from mmpost.core.display import short_number, visible
from mmpost.core.run_files import read_metrics
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
    entropy with a rising or steady reward is what training is for, and not mentioned. A resumed run goes on from the
    steps in its metrics.jsonl.
    """

    def __init__(self) -> None:
        self._run: Path | None = None
        """The run's folder, until the steps in it are read."""
        self._start("")

    def on_start(self, run: Path, config: Mapping[str, Any], total_steps: int) -> None:
        self._run = run

    def _start(self, stage: str) -> None:
        self._stage, self._warned = stage, False
        self._rewards: list[float] = []
        self._entropies: list[float | None] = []
        self._best: list[float] = []

    def on_metrics(self, metrics: Metrics) -> None:
        if self._run is not None:
            # A checkpoint may be older than the last line, so that some steps are repeated.
            earlier = [line for line in read_metrics(self._run) if line["step"] < int(metrics["step"])]
            self._run = None
            self._start("")
            for line in earlier:
                self._add(line)  # what it led to was said before
        message = self._add(metrics)
        if message:
            print(message, file=sys.stderr)

    def _add(self, metrics: Metrics) -> str:
        """Take in the metrics of a step; returns what is to be said after it."""
        values, stage = finite_values(metrics), str(metrics.get("stage", ""))
        if REWARD not in values:
            return ""
        if stage != self._stage:
            self._start(stage)
        self._rewards.append(values[REWARD])
        self._entropies.append(values.get(ENTROPY))  # a step without gradient has none
        # Each step makes one more window an earlier one.
        earlier = self._rewards[-2 * WINDOW : -WINDOW]
        if len(earlier) == WINDOW and (not self._best or fmean(earlier) > fmean(self._best)):
            self._best = earlier
        return self._warning(int(metrics["step"])) if self._best and not self._warned else ""

    def _warning(self, step: int) -> str:
        first = [value for value in self._entropies[:WINDOW] if value is not None]
        last = [value for value in self._entropies[-WINDOW:] if value is not None]
        if not first or not last or not fmean(last) < ENTROPY_LEFT * fmean(first):
            return ""
        best, now = self._best, self._rewards[-WINDOW:]
        error = math.sqrt((variance(best) + variance(now)) / WINDOW)
        if not fmean(best) - fmean(now) > STANDARD_ERRORS * error:
            return ""
        self._warned = True
        reward, entropy = (
            f"{short_number(fmean(a))} to {short_number(fmean(b))}" for a, b in ((best, now), (first, last))
        )
        return (
            f"mmpost: [{visible(self._stage)}] step {step}: the reward falls ({reward}) while the entropy collapses "
            f"({entropy}), so the policy repeats itself and seldom recovers; stop and lower optim.lr, or set "
            "task.policy.beta (a KL penalty) or task.policy.entropy (a bonus)"
        )
