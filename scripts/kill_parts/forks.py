"""Processes to kill: forked ones, also at a given file operation, and whole commands."""

from __future__ import annotations

import builtins
import io
import math
import os
import select
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

LIMIT = 120.0
"""Seconds after which a process hangs."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
OPERATIONS = {
    *("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.fsync"),
    *("sqlite3.connect", "shutil.rmtree"),
}
"""Python's audit events of file operations, besides opening for writing. `os.fsync` has none, and is wrapped."""


@dataclass(frozen=True)
class Moment:
    """When a process is killed."""

    how: str
    """time: after a share of an uninterrupted run. before: at a file operation. after: within 20 ms of one. torn: in
    the middle of a write."""
    at: int = 0
    """The number of the operation or write, from 1."""
    share: float = 0.0
    """Of the duration, of the 20 ms, or of the bytes that are still written."""
    whole_lines: bool = False
    """A torn write ends after a line."""
    group: bool = False
    """Kill also the processes that it started."""

    def __str__(self) -> str:
        where = f"{self.share:.0%}" if self.how == "time" else f"{self.at} ({self.share:.0%})"
        return f"{self.how} {where}" + " with its group" * self.group


class Operations:
    """Counts the file operations in `folders`, and acts when the one of `moment` comes. In a forked child only."""

    def __init__(self, folders: Sequence[Path], moment: Moment | None, report: Callable[[str], None]) -> None:
        self.folders, self.moment, self.report = [str(f) for f in folders], moment, report
        self.operations = self.writes = 0
        self._busy = False

    def counts(self) -> str:
        return f"counts {self.operations} {self.writes}"

    def start(self) -> None:
        fsync, self._open = os.fsync, io.open

        def audited_fsync(handle: Any) -> None:
            self.hook("os.fsync", (self.folders[0],))
            fsync(handle)

        os.fsync = audited_fsync
        io.open = builtins.open = self.open  # type: ignore[assignment]
        sys.addaudithook(self.hook)

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self._busy or (event not in OPERATIONS and not (event == "open" and _writes(args))):
            return
        # Within `shutil.rmtree` paths are relative to an open folder, whose handle is the last argument.
        relative = event in ("os.remove", "os.rmdir") and isinstance(args[-1], int) and args[-1] >= 0
        if not relative and not any(self._inside(a) for a in args):
            return
        self.operations += 1
        moment = self.moment
        if moment is None or moment.how not in ("before", "after") or moment.at != self.operations:
            return
        self._busy = True
        if moment.how == "before":
            self.kill(f"before {event} {args[0]}")
        self.report(f"reached {event} {args[0]}")
        self._busy = False

    def kill(self, where: str) -> NoReturn:
        assert self.moment is not None
        self.report(f"killed {where}")
        os.killpg(os.getpgrp(), signal.SIGKILL) if self.moment.group else os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("alive after SIGKILL")

    def open(self, file: Any, mode: str = "r", buffering: int = -1, *args: Any, **options: Any) -> Any:
        """`open`, with the writes to files in the folders counted."""
        if ("r" in mode and "+" not in mode) or isinstance(file, int) or not self._inside(file):
            return self._open(file, mode, buffering, *args, **options)
        names = ("encoding", "errors", "newline", "closefd", "opener")
        options |= dict(zip(names, args, strict=False))
        raw = _CountedFile(file, mode.replace("b", "").replace("t", ""), self, options)
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        text = io.TextIOWrapper(buffered, *(options.get(n) for n in names[:3]), line_buffering=buffering == 1)  # type: ignore[arg-type]
        text.mode = mode  # type: ignore[misc]
        return text

    def _inside(self, path: Any) -> bool:
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        return any(folder in text for folder in self.folders)


COUNTED: list[Operations] = []
"""In a forked child, and in those that it forks: what counts its operations."""


class _CountedFile(io.FileIO):
    """A file whose writes are counted, one of which may be torn."""

    def __init__(self, file: Any, mode: str, operations: Operations, options: Mapping[str, Any]) -> None:
        super().__init__(file, mode, options.get("closefd", True), options.get("opener"))
        self.operations = operations

    def write(self, data: Any, /) -> int:
        counter, moment = self.operations, self.operations.moment
        counter.writes += 1
        if moment is not None and moment.how == "torn" and moment.at == counter.writes:
            content = bytes(data)
            ends = [i + 1 for i, byte in enumerate(content) if byte == 10] if moment.whole_lines else []
            cut = ends[int(moment.share * len(ends))] if ends else int(moment.share * len(content))
            super().write(content[:cut])
            counter.kill(f"in a write of {cut} of {len(content)} bytes to {self.name}")
        return super().write(data)


def _writes(args: tuple[Any, ...]) -> bool:
    mode, flags = args[1], args[2]
    return bool(isinstance(flags, int) and flags & WRITES) or bool(isinstance(mode, str) and set(mode) & set("wax+"))


class Process:
    """A running process with its output in the file `log`, in a process group of its own."""

    def __init__(self, arguments: Sequence[str], pid: int, log: Path, reports: int | None) -> None:
        self.arguments, self.pid, self.log = arguments, pid, log
        self.started = time.monotonic()
        self.seconds = 0.0
        """How long it ran."""
        self.since = self.until = math.inf
        """While it surely owned its folder: from the report to the kill; `until` is -inf if it ended by itself."""
        self.status: int | None = None
        """The exit status; negative: the signal that ended it."""
        self.reports: list[str] = []
        self._pipe, self._handle, self._rest = reports, os.pidfd_open(pid), b""

    def reported(self, word: str) -> str:
        """The last report that begins with `word`; empty without one."""
        return next((r for r in reversed(self.reports) if r.split(" ")[0] == word), "")

    def wait(self, until: float | None = None, report: str = "") -> bool:
        """Wait for the end, the time `until`, or a report; returns whether the process has ended.

        Raises TimeoutError for a process that hangs.
        """
        while self.status is None and not (report and self.reported(report)):
            now = time.monotonic()
            if until is not None and now >= until:
                break
            if now > self.started + LIMIT:
                self.end()
                raise TimeoutError(f"still running after {LIMIT:.0f} s")
            rest = min(until or now + 1, self.started + LIMIT + 1) - now
            sources = [self._handle, *([self._pipe] if self._pipe is not None else [])]
            ready = select.select(sources, [], [], max(0.0, rest))[0]
            if self._pipe in ready:
                self._read()
            elif ready:
                self._reap()
        return self.status is not None

    def _read(self) -> None:
        assert self._pipe is not None
        lines = (self._rest + (data := os.read(self._pipe, 1 << 20))).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            clock, text = line.decode(errors="replace").split(" ", 1)
            self.reports.append(text)
            if text == "locked":
                self.since = min(self.since, float(clock))
            elif text.startswith("killed"):
                self.until = min(self.until, float(clock))
        if not data:
            os.close(self._pipe)
            self._pipe = None

    def _reap(self) -> None:
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._handle)
        self.seconds = time.monotonic() - self.started
        if self.status != -signal.SIGKILL:
            self.until = -math.inf
        # Processes that it started may still hold the pipe open.
        while self._pipe is not None and select.select([self._pipe], [], [], 0)[0]:
            self._read()
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    def kill(self, group: bool = False) -> None:
        """SIGKILL, to its group too if wanted; waits for its end."""
        if self.status is None:
            self.until = time.monotonic()
            os.killpg(self.pid, signal.SIGKILL) if group else os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def end(self) -> None:
        """Kill everything that is left of it."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if self.status is None:
            self._reap()

    def freeze(self, on: bool) -> None:
        if self.status is None:
            os.killpg(self.pid, signal.SIGSTOP if on else signal.SIGCONT)

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def forked(
    arguments: Sequence[str],
    work: Callable[[Sequence[str]], int],
    log: Path,
    environment: Mapping[str, str],
    folders: Sequence[Path],
    moment: Moment | None,
) -> Process:
    """`work(arguments)` in a forked child, which counts its file operations in `folders` and may be killed at one.

    Reports: "locked" once it owns its folder, "reached" or "killed" at the operation, and at the end "counts N M" of
    operations and writes. Forking is safe where this process has one thread, of Python and of torch.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _be_child(lambda: work(arguments), log, environment, Operations(folders, moment, _reporter(writer)))
    os.close(writer)
    with suppress(PermissionError, ProcessLookupError):  # it has done so itself, or has ended
        os.setpgid(pid, pid)
    return Process(arguments, pid, log, reader)


def command(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> Process:
    """`mmpost ARGUMENTS` as a user starts it, in a new interpreter."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "mmpost.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    process.returncode = 0  # waited for by Process
    return Process(arguments, process.pid, log, None)


def _reporter(pipe: int) -> Callable[[str], None]:
    def report(text: str) -> None:
        line = f"{time.monotonic()} {text}".replace("\n", " ")
        with suppress(OSError):  # nobody listens to what outlives its parent
            os.write(pipe, line.encode() + b"\n")

    return report


def _be_child(work: Callable[[], int], log: Path, environment: Mapping[str, str], operations: Operations) -> NoReturn:
    code = 1
    try:
        os.setpgid(0, 0)
        redirect(log)
        os.environ.update(environment)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        warnings.simplefilter("default")
        report_lock(operations.report)
        operations.start()
        COUNTED.append(operations)
        code = work()
        operations.report(operations.counts())
    except BaseException:  # noqa: BLE001  (also SystemExit: the parent only gets the exit status)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def redirect(log: Path) -> None:
    """Send stdout and stderr to a file, also of libraries in C."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.close(file)
    sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)


def report_lock(report: Callable[[str], None]) -> None:
    """Report "locked" when this process owns a folder or file."""
    from mmpost.core import run_files

    acquire = run_files._acquire

    def reported(file: Path, owned: Path) -> Any:
        lock = acquire(file, owned)
        report("locked")
        return lock

    run_files._acquire = reported
