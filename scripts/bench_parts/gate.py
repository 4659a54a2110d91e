"""How an arm, in its own process, does one step whenever the parent says so."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from bench_parts.meters import Counters, Memory, resident
from bench_parts.work import Row, Shape


@dataclass(frozen=True)
class Order:
    """What the parent asks of an arm."""

    arm: str
    shape: Shape
    rows: list[Row]
    model: str
    """Folder of the weights."""
    steps: int
    """Steps that will be asked for at most."""
    device: str = "cpu"
    dtype: str = "fp32"
    threads: int = 2


class Finished(Exception):
    """The parent wants no further step."""


@dataclass
class Gate:
    """Between the steps of an arm: reports the last one, waits for the next, and holds the clocks."""

    connection: Any
    device: torch.device
    counters: Counters | None = None
    base: int = 0
    """Memory after loading."""
    seconds: dict[str, float] = field(default_factory=dict)
    traced: bool = False
    """This step is for the memory of its training part, not for the clock."""
    peak: int = 0
    _start: float = 0.0
    _memory: Memory | None = None

    def ready(self, counters: Counters) -> None:
        """The arm stands before its first step."""
        self.counters, self.base = counters, resident(self.device)
        self.connection.send("ready")
        self.wait()

    def wait(self) -> None:
        """Until the next step may start. Raises Finished where there is none."""
        word = self.connection.recv()
        if word == "stop":
            raise Finished
        assert self.counters is not None
        self.traced, self.peak = word == "memory", 0
        self.counters.take()
        self.seconds = {}
        self._start = self.now()

    def done(self) -> None:
        """The step is over: send what it took, wait for the next."""
        assert self.counters is not None
        self.seconds["step"] = self.now() - self._start
        resident_bytes = resident(self.device) - self.base
        record = {"seconds": self.seconds, "counts": self.counters.take(), "resident": resident_bytes}
        self.connection.send(record | ({"training_bytes": self.peak} if self.traced else {}))
        self.wait()

    def training(self, on: bool) -> None:
        """The training part begins or ends: where the memory of this step is asked for, it is followed."""
        if on and self.traced:
            self._memory = Memory(self.device)
            self._memory.start()
        elif not on and self._memory is not None:
            self.peak, self._memory = self._memory.stop(), None

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()
