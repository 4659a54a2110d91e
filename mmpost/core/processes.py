"""Processes that mmpost starts, and what becomes of them when it is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from mmpost.errors import TrainError

PR_SET_PDEATHSIG = 1
"""Of Linux, prctl(2)."""


def end_with(parent: int) -> None:
    """Let SIGTERM end this process when `parent`, which started it, ends, even by SIGKILL. On Linux only.

    Otherwise it would go on in a folder that the user's next command takes for abandoned. Raises TrainError if the
    parent has ended already.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise TrainError(f"process {parent}, for which this one was started, has ended")
