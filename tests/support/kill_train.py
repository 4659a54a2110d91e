"""Processes of `mmpost train` that wait for a SIGKILL in a phase of their work. Run by test_kills.py.

Each line of the input, {"phase", "at", "words"}, forks one: it tells its id, and in the at-th passage through the phase
it tells so and works on, until whoever reads that kills it, but never past the end of the phase. In the phases of FILES
it kills itself before it touches a file. Without a phase it tells at its end how long each phase took. What it prints
goes to the file that is named. When it has ended, its status is told. Forks save importing torch 21 times.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from typing import Any

FILES = {"renames": ("os.rename", "os.symlink", "os.remove"), "pruning": ("os.rename", "os.remove", "os.rmdir")}
"""Phases that are cut between two touches of files, as Python's audit events call them."""


TOLD = os.dup(1)
"""The pipe to the test; what a run prints goes elsewhere."""


def tell(**what: Any) -> None:
    os.write(TOLD, (json.dumps(what) + "\n").encode())


class Killer:
    def __init__(self, phase: str, at: int) -> None:
        self.phase, self.at = phase, at
        self.seen = 0
        self.job: Any = None
        self.inside: list[str] = []
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def within(self, phase: str, owner: Any, name: str, also: str = "") -> None:
        """Make calls of `owner.name` the phase: those inside `also`, if it is given, and outside evaluation."""
        plain = getattr(owner, name)

        @functools.wraps(plain)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if "evaluation" in self.inside or (also and also not in self.inside):
                return plain(*args, **kwargs)
            start = time.perf_counter()
            mine = phase == self.phase and phase not in FILES and self._count()
            self.inside.append(phase)
            try:
                if mine:
                    tell(step=self.step())
                return plain(*args, **kwargs)
            finally:
                self.inside.pop()
                self.seconds[phase].append(time.perf_counter() - start)
                if mine:
                    tell(waits=True)
                    signal.pause()

        setattr(owner, name, wrapped)

    def step(self) -> int:
        """Steps done."""
        return self.job.step if self.job else 0

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.phase in FILES and self.phase in self.inside and event in FILES[self.phase] and self._count():
            tell(step=self.step(), moment=f"before {event} {os.path.basename(str(args[0]))}")
            os.kill(os.getpid(), signal.SIGKILL)

    def _count(self) -> bool:
        self.seen += 1
        return self.seen == self.at


def after(owner: Any, name: str, act: Callable[..., None]) -> None:
    plain = getattr(owner, name)

    @functools.wraps(plain)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        act(*args)
        return plain(*args, **kwargs)

    setattr(owner, name, wrapped)


def train(phase: str, at: int, words: list[str]) -> int:
    from mmpost import cli
    from mmpost.models.chat.model import ChatModel
    from mmpost.rollout.local import LocalRollout
    from mmpost.runs import checkpoint, run
    from mmpost.training import trainer
    from mmpost.training.trainer import LocalEngine
    from mmpost.updates.adamw import AdamWUpdate

    killer = Killer(phase, at)
    killer.within("evaluation", run, "run_benches")
    killer.within("rollout", LocalRollout, "generate")
    killer.within("update", trainer, "optimizer_step")
    killer.within("forward", ChatModel, "__call__", also="update")
    killer.within("backward", LocalEngine, "backward")
    killer.within("optimiser", AdamWUpdate, "step")
    killer.within("weights", ChatModel, "save")
    killer.within("state", checkpoint.torch, "save")
    killer.within("renames", checkpoint, "_place")
    killer.within("pruning", checkpoint, "prune")

    def note(job: Any, *_: Any) -> None:
        killer.job = job

    after(trainer, "train_stage", note)
    sys.addaudithook(killer.hook)
    tell(began=os.getpid())
    code = cli.main(["train", *words])
    tell(seconds={phase: sum(found) / len(found) for phase, found in killer.seconds.items()})
    return code


def main() -> None:
    import matplotlib.backends.backend_agg  # noqa: F401

    import mmpost.runs.session  # noqa: F401

    for line in sys.stdin:
        wanted = json.loads(line)
        child = os.fork()
        if child == 0:
            said = os.open(wanted.pop("said"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            code = 1
            try:
                code = train(**wanted)
            finally:
                if code:
                    traceback.print_exc()
                sys.stdout.flush()
                os._exit(code)
        tell(status=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
