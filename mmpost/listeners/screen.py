"""The progress display in the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import progress
from rich.console import Console

from mmpost.core.display import short_number, visible
from mmpost.listeners.base import Listener, Metrics, finite_values

SHOWN = {"reward/total": "reward", "loss": "loss", "reply/length": "length", "reward/zero_std_groups": "zero-variance"}
"""Metrics of the progress line, with their labels."""


class Progress(Listener):
    """A live progress bar in a terminal; otherwise one line every `every` steps (0: about fifty per run). To stderr."""

    def __init__(self, every: int = 0, console: Console | None = None) -> None:
        self.every = every
        self.console = console or Console(file=sys.stderr)
        self._bar: progress.Progress | None = None
        self._task = progress.TaskID(0)
        self._total = 0
        self._first: tuple[int, float] | None = None

    def on_start(self, run: Path, config: Mapping[str, Any], total_steps: int) -> None:
        self.on_end({})
        self._total, self._first = total_steps, None
        self.console.print(
            f"run {visible(str(run))}: {total_steps} steps", highlight=False, markup=False, soft_wrap=True
        )
        if self.console.is_terminal:
            self._bar = progress.Progress(
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(bar_width=24),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[shown]}", markup=False),
                progress.TextColumn("{task.fields[left]}", markup=False),
                console=self.console,
            )
            self._task = self._bar.add_task("starting", total=total_steps, shown="", left="")
            self._bar.start()

    def on_metrics(self, metrics: Metrics) -> None:
        step, values = int(metrics["step"]), finite_values(metrics)
        stage = visible(str(metrics.get("stage", "")))
        shown = "  ".join(f"{label} {short_number(values[name])}" for name, label in SHOWN.items() if name in values)
        left = self._left(step)
        evaluation = "  ".join(
            f"{visible(name)} {short_number(v)}" for name, v in values.items() if name.startswith("eval/")
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=stage, shown=shown, left=left)
        elif shown and self._due(step):
            line = [f"[{stage}] step {step}/{self._total}", shown, left]
            self._print("  ".join(filter(None, line)))
        if evaluation:
            self._print(f"step {step}: {evaluation}")

    def on_end(self, summary: Mapping[str, Any]) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = None

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _due(self, step: int) -> bool:
        every = self.every or max(1, self._total // 50)
        return step % every == 0 or step in (1, self._total)

    def _left(self, step: int) -> str:
        """Remaining time at the mean speed of this session, which includes evaluations and checkpoints."""
        now = time.monotonic()
        if self._first is None or step <= self._first[0]:
            self._first = self._first or (step, now)
            return ""
        seconds = (now - self._first[1]) / (step - self._first[0]) * max(0, self._total - step)
        hours, rest = divmod(round(seconds), 3600)
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d} left" if hours else f"{rest // 60}:{rest % 60:02d} left"
