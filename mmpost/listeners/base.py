"""The listener interface, and the one object through which the loop talks to all of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpost.types import Sample

Metrics = Mapping[str, float | int | str]
"""One step's numbers: step, stage and rollout always; the others only where they mean something, never null."""


class Listener:
    """Hears about a run on rank 0. Every method does nothing by default."""

    def on_start(self, run: Path, config: Mapping[str, Any], total_steps: int) -> None:
        """`run` is the run's folder, which exists; a resumed run starts again here."""

    def on_metrics(self, metrics: Metrics) -> None:
        """Once per optimiser step, and once for each evaluation outside a step."""

    def on_samples(self, step: int, samples: Sequence[Sample]) -> None:
        """The scored samples behind a step."""

    def on_eval(self, name: str, bench: str, samples: Sequence[Sample]) -> None:
        """The scored samples of one bench in the evaluation `name` ("before", "after", "step-20")."""

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """The run is over, whatever the reason; `summary` is what summary.json holds."""


class Listeners(Listener):
    """Passes each event on to all; an error in one is reported once under its name and never reaches the run."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.listeners = list(listeners)
        self._failed: set[int] = set()

    def on_start(self, run: Path, config: Mapping[str, Any], total_steps: int) -> None:
        self._each("on_start", lambda one: one.on_start(run, config, total_steps))

    def on_metrics(self, metrics: Metrics) -> None:
        self._each("on_metrics", lambda one: one.on_metrics(metrics))

    def on_samples(self, step: int, samples: Sequence[Sample]) -> None:
        self._each("on_samples", lambda one: one.on_samples(step, samples))

    def on_eval(self, name: str, bench: str, samples: Sequence[Sample]) -> None:
        self._each("on_eval", lambda one: one.on_eval(name, bench, samples))

    def on_end(self, summary: Mapping[str, Any]) -> None:
        self._each("on_end", lambda one: one.on_end(summary))

    def _each(self, event: str, call: Callable[[Listener], None]) -> None:
        for listener in self.listeners:
            try:
                call(listener)
            except Exception as error:  # noqa: BLE001 - a full disk or a dead tracker must not end hours of training
                if id(listener) not in self._failed:
                    self._failed.add(id(listener))
                    warnings.warn(
                        f"the listener {type(listener).__name__} failed in {event} ({type(error).__name__}: {error}); "
                        "training goes on, and further errors of this listener are not shown",
                        RuntimeWarning,
                        stacklevel=3,
                    )


def numbers(metrics: Metrics) -> dict[str, float]:
    """The finite numbers of a line of metrics, by name."""
    values = {name: float(value) for name, value in metrics.items() if not isinstance(value, str)}
    return {name: value for name, value in values.items() if math.isfinite(value)}
