"""Whether an answer is the same mathematical expression as the truth, through math-verify in a process of its own."""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from functools import lru_cache

from mmpost.errors import DataError
from mmpost.rewards.text import inside
from mmpost.types import Reply, Sample

SECONDS = 5.0
"""Longest wait for one comparison; a reply that takes longer is wrong."""
START = 120.0
"""Longest wait for the process to import what it needs."""
LONGEST = 20_000
"""Characters that are looked at, from the end, where answers stand."""


class _Worker:
    """The process, started when it is first needed and again after it was ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, said: str, truth: str, seconds: float) -> bool:
        """Whether the two are equal; False where it takes longer than `seconds`."""
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps([said, truth]).encode() + b"\n")
                process.stdin.flush()
                return self._line(process, seconds) == b"yes"
            except BrokenPipeError:
                self.end()
                return False

    def _running(self) -> subprocess.Popen[bytes]:
        # A forked child must not read its parent's answers.
        if self._process is None or self._owner != os.getpid():
            command = [sys.executable, "-W", "ignore", "-m", "mmpost.rewards._math_worker"]
            # A session of its own: an interrupt from the terminal is for the run, which still wants its answers.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._owner = os.getpid()
            if self._line(self._process, START) != b"ready":
                raise DataError(
                    "the process that compares expressions did not start: wanted math-verify, found that "
                    f"`{' '.join(command[1:])}` ends or hangs; run it in a terminal to see why"
                )
        return self._process

    def _line(self, process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
        """The next line, or None where none comes in time (or the process has died); it is ended then."""
        assert process.stdout is not None
        said, until = b"", time.monotonic() + seconds
        while not said.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))
            piece = os.read(process.stdout.fileno(), 4096) if ready else b""
            if not piece:
                self.end()
                return None
            said += piece
        return said.strip()

    def end(self) -> None:
        """End the process, if it is ours."""
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.communicate()
        self._process = None


_worker = _Worker()
atexit.register(_worker.end)


@lru_cache(maxsize=4096)
def same(said: str, truth: str, seconds: float = SECONDS) -> bool:
    """Whether the two texts hold equal expressions (LaTeX, fractions, sets, ...).

    What cannot be read, and what takes longer than `seconds`, is not equal. Raises DataError where math-verify is
    missing.
    """
    return _worker.ask(said[-LONGEST:], truth[-LONGEST:], seconds)


def same_expression(sample: Sample, reply: Reply) -> float | None:
    """1 where the answer (inside answer tags, else the whole reply) equals the truth as mathematics, else 0.

    None for a sample whose truth is not text or a number.
    """
    if not isinstance(sample.truth, str | int | float):
        return None
    said, truth = inside(reply.text), inside(str(sample.truth))
    return float(said == truth or same(said, truth))
