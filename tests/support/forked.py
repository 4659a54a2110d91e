"""Child processes forked from the test process, and two distributed ranks of them.

A new interpreter spends about four seconds importing torch and transformers; a fork has both already. Forking is safe
here because torch has one thread (OMP_NUM_THREADS=1) and no GPU. Some tests still start new interpreters.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from mmpost import cli
from mmpost.core import distributed


class Forked:
    """Runs `work` in a forked child with output to the file `log`; offers the methods of `Popen` that tests use.

    The exit status is the return value of `work`: 0 for None, 1 for an exception.
    """

    def __init__(self, work: Callable[[], int | None], log: Path, **environment: str) -> None:
        self.log = log
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _be_child(work, log, environment)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        """The exit status. Kills the child and raises TimeoutError with its output after `timeout` seconds."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                self.kill()
                raise TimeoutError(f"a forked child was still running after {timeout} s:\n{self.output()}")
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        self.wait()

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def _be_child(work: Callable[[], int | None], log: Path, environment: dict[str, str]) -> NoReturn:
    code = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for descriptor in (1, 2):
            os.dup2(file, descriptor)
        sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)
        os.environ.update(environment)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        warnings.simplefilter("default")  # a new process would not have the filters of pytest either
        code = work() or 0
    except BaseException:  # noqa: BLE001  (also SystemExit: the parent only gets the exit status)
        traceback.print_exc()
    finally:
        # Skip the exit handlers of pytest and xdist.
        sys.stdout.flush()
        os._exit(code)


def command(arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Forked:
    """`mmpost ARGUMENTS` in a forked child."""
    return Forked(lambda: cli.main(arguments), log, **(environment or {}))


def on_two_ranks(compute: Callable[[], Any], folder: Path) -> Any:
    """The result of `compute` on rank 0 of two gloo ranks: tensors and plain containers. Writes files to `folder`.

    Raises RuntimeError with the output of a rank that fails.
    """
    out = folder / "rank-0.pt"

    def work() -> None:
        distributed.start("cpu")
        result = compute()
        if distributed.rank() == 0:
            torch.save(result, out)
        distributed.stop()

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [Forked(work, folder / f"rank-{r}.log", RANK=r, LOCAL_RANK=r, **group) for r in ("0", "1")]
    end = time.monotonic() + 300
    while any(rank.poll() is None for rank in ranks):
        failed = [rank for rank in ranks if rank.poll()]
        if failed or time.monotonic() > end:  # the other rank would wait for it
            for rank in ranks:
                rank.kill()
            break
        time.sleep(0.01)
    for rank in ranks:
        if rank.returncode:
            raise RuntimeError(f"exit status {rank.returncode} of a rank:\n{rank.output()}")
    return torch.load(out, weights_only=True)
