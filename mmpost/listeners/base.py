"""The listener interface, and the dispatcher through which the training loop calls all listeners."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpost.types import Sample

Metrics = Mapping[str, float | int | str]
"""Metrics of one step by name: always `step`, `stage` and `rollout`, others only if they apply; never None."""


class Listener:
    """Receives the events of a run, on rank 0 only. By default every method does nothing."""

    def on_start(self, run: Path, config: Mapping[str, Any], total_steps: int) -> None:
        """Called once training is set up, also of a resumed run; `run` is the run's folder, which exists."""

    def on_metrics(self, metrics: Metrics) -> None:
        """Called once per optimizer step, and once for each evaluation outside of a step."""

    def on_samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Called with the scored samples of the rollout batch that a step trains on."""

    def on_eval(self, name: str, bench: str, samples: Sequence[Sample]) -> None:
        """Called with the scored samples of one bench in the evaluation `name` ("before", "after", "step-20")."""

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """Called when the run ends, for any reason; `summary` is the content of summary.json."""


class Listeners(Listener):
    """Dispatches each event to all listeners. An exception in a listener only causes a warning."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.listeners = list(listeners)
        self._failed: set[int] = set()

    def on_start(self, run: Path, config: Mapping[str, Any], total_steps: int) -> None:
        self._each("on_start", lambda listener: listener.on_start(run, config, total_steps))

    def on_metrics(self, metrics: Metrics) -> None:
        self._each("on_metrics", lambda listener: listener.on_metrics(metrics))

    def on_samples(self, step: int, samples: Sequence[Sample]) -> None:
        self._each("on_samples", lambda listener: listener.on_samples(step, samples))

    def on_eval(self, name: str, bench: str, samples: Sequence[Sample]) -> None:
        self._each("on_eval", lambda listener: listener.on_eval(name, bench, samples))

    def on_end(self, summary: Mapping[str, Any]) -> None:
        self._each("on_end", lambda listener: listener.on_end(summary))

    def _each(self, event: str, call: Callable[[Listener], None]) -> None:
        for listener in self.listeners:
            try:
                call(listener)
            except Exception as error:  # noqa: BLE001 - a full disk or an unreachable tracker must not end hours of training
                if id(listener) not in self._failed:
                    self._failed.add(id(listener))
                    warnings.warn(
                        f"the listener {type(listener).__name__} failed in {event} ({type(error).__name__}: {error}); "
                        "training continues, and further errors of this listener are not shown",
                        RuntimeWarning,
                        stacklevel=3,
                    )


def finite_values(metrics: Metrics) -> dict[str, float]:
    """The finite numeric metrics by name; strings, NaN and infinities are left out."""
    values = {name: float(value) for name, value in metrics.items() if not isinstance(value, str)}
    return {name: value for name, value in values.items() if math.isfinite(value)}
