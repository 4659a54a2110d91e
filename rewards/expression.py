"""Mathematical equivalence of answer and truth, by math-verify in a worker process that can be killed."""

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
from mmpost.rewards.text import answer_or_text
from mmpost.types import Reply, Sample

SECONDS = 5.0
"""Time limit of one comparison; a reply that exceeds it is wrong."""
START = 120.0
"""Time limit for the worker to start: it imports sympy."""
LONGEST = 4_000
"""Only this many characters are compared, from the end: answers come last, and math-verify needs more than linear time
for some texts."""


class _Worker:
    """The worker process; starts on first use, and again after it was killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, answer: str, truth: str, seconds: float) -> bool:
        """Whether the two are equal; False after `seconds`."""
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps([answer, truth]).encode() + b"\n")
                process.stdin.flush()
                return self._line(process, seconds) == b"yes"
            except BrokenPipeError:
                self.end()
                return False

    def _running(self) -> subprocess.Popen[bytes]:
        # A forked child shares the pipe: it must not read the answers to its parent.
        if self._process is None or self._owner != os.getpid():
            command = [sys.executable, "-W", "ignore", "-m", "mmpost.rewards._math_worker"]
            # In a new session, or Ctrl-C in the terminal would kill it while the run still finishes its step.
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
                    "the worker that compares expressions did not start: wanted math-verify, found that "
                    f"`{' '.join(command[1:])}` exits or hangs; run it in a terminal to see why"
                )
        return self._process

    def _line(self, process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
        """The next line of output, or None, and the process killed, if none arrives in time or the process died."""
        assert process.stdout is not None
        line, deadline = b"", time.monotonic() + seconds
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(process.stdout.fileno(), 4096) if ready else b""
            if not chunk:
                self.end()
                return None
            line += chunk
        return line.strip()

    def end(self) -> None:
        """Kill the process, unless a parent process owns it."""
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.communicate()
        self._process = None


_worker = _Worker()
atexit.register(_worker.end)


@lru_cache(maxsize=4096)
def equivalent(answer: str, truth: str, seconds: float = SECONDS) -> bool:
    """Whether the two texts hold equal expressions (LaTeX, fractions, sets, ...).

    False for what cannot be parsed, and after `seconds`. Raises DataError if math-verify is not installed.
    """
    return _worker.ask(answer[-LONGEST:], truth[-LONGEST:], seconds)


def same_expression(sample: Sample, reply: Reply) -> float | None:
    """1 if the answer (inside answer tags, else the whole reply) is mathematically equal to the truth, else 0.

    None if the truth is neither text nor a number.
    """
    if not isinstance(sample.truth, str | int | float):
        return None
    answer, truth = answer_or_text(reply.text), answer_or_text(str(sample.truth))
    return float(answer == truth or equivalent(answer, truth))
