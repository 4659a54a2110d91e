"""One seed: a run that is killed several times, goes on each time, and must end as if nothing had happened."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kill_parts import forks, same
from kill_parts.forks import Moment, Process
from kill_parts.kinds import Kind
from mmpost.errors import MmpostError
from mmpost.runs import checkpoint

REFUSED = "is in use: another mmpost process"
DONE = "set steps=N for more"
"""What `resume=` answers when the run is finished."""
NOT_EMPTY = "is not empty; choose a new folder"
SOON = 0.02
"""Seconds after an operation within which a kill comes."""
STILL = 1.0
"""Seconds without a change after which nobody writes."""
TEARDOWN = 10.0
"""Seconds in which a process that has done everything has ended."""


class Lost(Exception):
    """Something is not as it would be without the kills."""


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run of a kind, on this machine and commit."""

    folder: Path
    seconds: float
    operations: int
    writes: int


@dataclass
class Outcome:
    """What happened to a seed."""

    kills: int = 0
    refused: int = 0
    """Second processes that were refused, or that waited."""
    diary: list[str] = field(default_factory=list)
    error: str = ""


def draw_moment(rng: random.Random, reference: Reference, first: bool, group: bool) -> Moment:
    """Half of the moments are aimed at file operations, since most of a run's time passes between them."""
    how = rng.choices(("time", "before", "after", "torn"), (5, 3, 2, 2))[0]
    # A run that goes on has less to do.
    left = 1.0 if first else 0.8
    count = reference.writes if how == "torn" else reference.operations
    at = 1 + int(rng.random() * left * max(1, count))
    share = rng.random() * (left if how == "time" else 1.0)
    return Moment(how, at, share, rng.random() < 0.4, group and rng.random() < 0.3)


class Seed:
    """Runs one seed of a kind in `folder`; everything but the timing follows from the name of the seed."""

    kills: Sequence[int] = (1, 2, 3, 3, 4, 4, 5, 6)
    """How many kills a seed may plan; it ends sooner where a run comes to its end."""

    def __init__(self, name: str, kind: Kind, reference: Reference, folder: Path, inputs: Path) -> None:
        self.kind, self.reference, self.folder, self.inputs = kind, reference, folder, inputs
        self.rng = random.Random(name)
        self.work = folder / "work"
        self.outcome = Outcome()
        self.started: list[Process] = []

    def run(self) -> Outcome:
        """Kill, go on, compare; the folder stays only where something is lost."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.work.mkdir(parents=True)
        if self.kind.prepare is not None:
            self.kind.prepare(self.work, self.inputs)
        try:
            self._kill_and_go_on()
            if found := same.differences(self.work, self.reference.folder, self.kind.may_leave):
                raise Lost("; ".join(found))
        except (Lost, TimeoutError, MmpostError) as e:
            self.outcome.error = str(e)
            (self.folder / "diary.txt").write_text("\n".join([*self.outcome.diary, str(e)]) + "\n")
        finally:
            for process in self.started:
                if process.status is None or self.kind.processes:
                    process.end()
        if not self.outcome.error:
            shutil.rmtree(self.folder)
        return self.outcome

    def _kill_and_go_on(self) -> None:
        planned, reached = self.rng.choice(self.kills), -1
        for number in range(planned):
            moment = self._moment(number == 0)
            company = self.rng.choices(("alone", "late", "at once"), (8, 2, 1))[0]
            ended = self._attempt(number == 0, moment, company)
            step = self._newest()
            if step < reached:
                raise Lost(f"the newest checkpoint is of step {step}, after one of step {reached}")
            reached = step
            if ended and self.rng.random() < 0.7:  # else its command is run once more, which must change nothing
                return
        self._finish()

    def _moment(self, first: bool) -> Moment:
        return draw_moment(self.rng, self.reference, first, self.kind.processes)

    def _attempt(self, first: bool, moment: Moment, company: str) -> bool:
        """Start a process, with a second one beside it, and kill it at its moment; returns whether one came to its end.

        A second process that comes late is refused, or waits and then does the work.
        """
        process = self._start(first, moment)
        self._note(f"{' '.join(process.arguments)}: kill {moment}; {company}")
        second, patient = None, company != "alone" and self.kind.waits
        if patient:
            second = self._start(first, None)
        elif company == "late":
            self._refuse_another(process)
        elif company == "at once":
            second = self._start(first, None)
        self._kill_at(process, moment)
        if second is not None and not patient:
            self._kill_at(second, Moment("time", share=moment.share))
        elif second is not None:
            second.wait()
            self.outcome.refused += 1
        pair = [p for p in (process, second) if p is not None]
        if len(pair) == 2 and not patient and min(p.until for p in pair) > max(p.since for p in pair):
            raise Lost("two processes owned the folder at the same time")
        ended = [self._judge(p, together=len(pair) == 2, first=first) for p in pair]
        return any(ended)

    def _kill_at(self, process: Process, moment: Moment) -> None:
        if moment.how == "time":
            process.wait(process.started + moment.share * self.reference.seconds)
            process.kill(moment.group)
        elif moment.how == "after":
            if not process.wait(report="reached"):
                process.wait(time.monotonic() + moment.share * SOON)
                process.kill(moment.group)
        else:  # it kills itself
            process.wait()

    def _judge(self, process: Process, together: bool, first: bool) -> bool:
        """Count a kill or a refusal. Returns whether the process came to its end; raises Lost where it failed."""
        text, at = process.output(), process.reported("killed") or process.reported("reached")
        self._note(f"   -> {process.status} {at}")
        if process.status == -signal.SIGKILL or process.reported("killed"):
            self.outcome.kills += 1
            return False
        if together and process.status == 1 and REFUSED in text:
            self.outcome.refused += 1
            return False
        if process.status == 0 or (process.status == 1 and DONE in text):
            return True
        if together and first and NOT_EMPTY in text:
            return False
        raise Lost(f"{' '.join(process.arguments)} failed with {process.status}: {text[-1500:]}")

    def _refuse_another(self, process: Process) -> None:
        """While `process` stands still within its work, the same command must be refused and touch nothing."""
        if process.wait(report="locked"):
            return
        if process.wait(time.monotonic() + 0.5 * self.rng.random() * self.reference.seconds):
            return
        frozen = time.monotonic()
        process.freeze(True)
        try:
            before = self._snapshot()
            second = self._start(False, None)
            second.wait()
            if same.snapshot(self.work) != before:
                raise Lost("a second process changed the folder")
            if second.status == 0 or DONE in second.output():
                # Right if the first has done everything, and only has not ended yet.
                process.freeze(False)
                if not process.wait(time.monotonic() + TEARDOWN) or same.snapshot(self.work) != before:
                    raise Lost(f"a second process found work done beside a first: {second.output()[-1500:]}")
                return
            if second.status != 1 or REFUSED not in second.output():
                raise Lost(f"a second process ended with {second.status}: {second.output()[-1500:]}")
        finally:
            process.freeze(False)
            process.started += time.monotonic() - frozen
        self.outcome.refused += 1

    def _snapshot(self) -> dict[str, tuple[int, int]]:
        """The folder once it stands still: what an earlier kill has orphaned may still save and end."""
        before = same.snapshot(self.work)
        while self.kind.processes:
            time.sleep(STILL)
            if (now := same.snapshot(self.work)) == before:
                break
            before = now
        return before

    def _finish(self) -> None:
        """What a user runs to go on, to its end."""
        process = self._start(False, None)
        process.wait()
        self._note(f"{' '.join(process.arguments)}: to the end")
        self._judge(process, together=False, first=False)

    def _start(self, first: bool, moment: Moment | None) -> Process:
        arguments = self.kind.arguments(self.work, self.inputs, first)
        log = self.folder / f"{len(self.started) + 1}.log"
        environment = self.kind.environment(self.work, self.inputs)
        process = forks.forked(arguments, self.kind.run, log, environment, [self.work], moment)
        self.started.append(process)
        return process

    def _newest(self) -> int:
        """The step of the checkpoint that a user would go on from; -1 without any."""
        root = self.work / "run" / "checkpoints"
        if not root.is_dir():
            return -1
        with contextlib.redirect_stderr(io.StringIO()):
            found = checkpoint.newest(root)
        return -1 if found is None else int(found.name.lstrip(".").removeprefix("step-"))

    def _note(self, text: str) -> None:
        self.outcome.diary.append(text)


class Command(Seed):
    """The same with whole commands, in new interpreters and with all of their processes; a third of the kills hits the
    start, which takes longest."""

    kills = (1, 2)

    def __init__(self, name: str, kind: Kind, reference: Reference, folder: Path, inputs: Path, startup: float) -> None:
        """`startup`: how many seconds longer than a forked run a whole command takes."""
        super().__init__(name, kind, reference, folder, inputs)
        self.startup = startup

    def _moment(self, first: bool) -> Moment:
        whole = self.startup + self.reference.seconds
        early, share = self.rng.random() < 0.3, self.rng.random()
        seconds = whole * share if early else self.startup + self.reference.seconds * share
        return Moment("time", share=seconds / self.reference.seconds, group=True)

    def _start(self, first: bool, moment: Moment | None) -> Process:
        arguments = self.kind.arguments(self.work, self.inputs, first)
        log = self.folder / f"{len(self.started) + 1}.log"
        process = forks.command(arguments, log, self.kind.environment(self.work, self.inputs))
        self.started.append(process)
        return process

    def _refuse_another(self, process: Process) -> None:
        """Commands do not report their lock, but a run has it by the time that it writes its configuration."""
        file = self.work / "run" / "config.yaml"
        if self.kind.again != ("{resume}",) or file.exists():
            return
        while not file.exists():
            if process.wait(time.monotonic() + 0.05):
                return
        process.reports.append("locked")
        super()._refuse_another(process)
