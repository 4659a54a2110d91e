"""Stopping by a signal: the first lets the current step finish, the second aborts it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupted(Exception):
    """Raised by the second signal, only inside `StopSignal.interruptible`."""


class StopSignal:
    """Handles SIGTERM and Ctrl-C while its context is entered.

    The first signal sets `requested`, which the training loop reads after each step. The second raises `Interrupted` as
    soon as the code is somewhere that can be aborted: in a rollout or a forward pass, never while weights are updated
    or files are written. The third raises KeyboardInterrupt.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.requested = False
        self._abort_requested = False
        self._interruptible = False
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        # Python allows handlers in the main thread only; elsewhere signals keep their default meaning.
        if threading.current_thread() is threading.main_thread():
            self._previous_handlers = {s: signal.signal(s, self._handle) for s in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Surrounds work that leaves nothing half done when it is aborted."""
        # A second signal may have arrived while the weights were updated; it takes effect here.
        if self._abort_requested:
            raise Interrupted
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._abort_requested:
            raise KeyboardInterrupt
        if not self.requested:
            self.requested = True
            print(
                "\nmmpost: finishing this step, then saving; send the signal again to save without it", file=sys.stderr
            )
            return
        self._abort_requested = True
        if self._interruptible:
            raise Interrupted
