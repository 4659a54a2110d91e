"""Being told to stop: the first signal lets the step finish, the second does not wait for it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupted(Exception):
    """Raised by the second signal, only inside `Stop.interruptible`."""


class StopSignal:
    """Hears SIGTERM and Ctrl-C while it is entered.

    The first sets `asked`; whoever runs the loop looks at it after each step. The second raises `Now` as soon as the
    work is somewhere that it may be cut off: in a rollout or a forward pass, never while weights move or files are
    written. The third is the ordinary Ctrl-C.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.requested = False
        self._urgent = False
        self._interruptible = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._hear) for s in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Work that leaves nothing half done when it is cut off."""
        if self._urgent:
            raise Interrupted
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._urgent:
            raise KeyboardInterrupt
        if not self.requested:
            self.requested = True
            print("\nmmpost: finishing this step, then saving; once more to save without it", file=sys.stderr)
            return
        self._urgent = True
        if self._interruptible:
            raise Interrupted
