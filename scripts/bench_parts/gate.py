"""Synchronizes an arm, which runs in its own process, with the parent: one step per request."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from bench_parts.meters import Counters, Memory, resident
from bench_parts.work import Row, Shape


@dataclass(frozen=True)
class Order:
    """The job of one arm."""

    arm: str
    shape: Shape
    rows: list[Row]
    model: str
    """Folder of the weights."""
    steps: int
    """Maximum number of steps that will be requested."""
    device: str = "cpu"
    dtype: str = "fp32"
    threads: int = 2


class Finished(Exception):
    """The parent requests no further steps."""


@dataclass
class Gate:
    """Reports the last step of an arm, waits for the next request, and measures time and memory."""

    connection: Any
    device: torch.device
    counters: Counters | None = None
    base: int = 0
    """Memory after loading."""
    seconds: dict[str, float] = field(default_factory=dict)
    traced: bool = False
    """Whether this step measures the memory of training rather than time."""
    peak: int = 0
    _start: float = 0.0
    _memory: Memory | None = None

    def ready(self, counters: Counters) -> None:
        """Report that the arm is ready for its first step."""
        self.counters, self.base = counters, resident(self.device)
        self.connection.send("ready")
        self.wait()

    def wait(self) -> None:
        """Wait until the next step is requested. Raises Finished if there is none."""
        request = self.connection.recv()
        if request == "stop":
            raise Finished
        assert self.counters is not None
        self.traced, self.peak = request == "memory", 0
        self.counters.take()
        self.seconds = {}
        self._start = self.now()

    def done(self) -> None:
        """Report the measurements of the finished step and wait for the next request."""
        assert self.counters is not None
        self.seconds["step"] = self.now() - self._start
        resident_bytes = resident(self.device) - self.base
        record = {"seconds": self.seconds, "counts": self.counters.take(), "resident": resident_bytes}
        self.connection.send(record | ({"training_bytes": self.peak} if self.traced else {}))
        self.wait()

    def training(self, on: bool) -> None:
        """Mark the start or end of the training part; its memory is measured if the parent requested it."""
        if on and self.traced:
            self._memory = Memory(self.device)
            self._memory.start()
        elif not on and self._memory is not None:
            self.peak, self._memory = self._memory.stop(), None

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()
