"""Processes of `mmpost train` that are killed in a given phase. Run by test_kills.py.

Each input line, {"phase", "at", "words", "said"}, forks one run. It reports its pid; when it enters the phase for the
at-th time, it reports that and continues until the test kills it, at most to the end of the phase. In phases of FILES
it kills itself before a file operation. Without a phase, it reports the mean duration of each phase at the end. Its
output goes to the file `said`. The parent reports its exit status. Forking saves importing torch 21 times.
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
"""Phases killed between two file operations, given as Python audit events."""


REPORT_PIPE = os.dup(1)
"""The pipe to the test; the output of the run goes to a file."""


def report(**what: Any) -> None:
    os.write(REPORT_PIPE, (json.dumps(what) + "\n").encode())


class Killer:
    def __init__(self, phase: str, at: int) -> None:
        self.phase, self.at = phase, at
        self.num_calls = 0
        self.context: Any = None
        self.inside: list[str] = []
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def within(self, phase: str, owner: Any, name: str, also: str = "") -> None:
        """Declare calls of `owner.name` as the phase, except in evaluation; only inside phase `also` if given."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if "evaluation" in self.inside or (also and also not in self.inside):
                return original(*args, **kwargs)
            start = time.perf_counter()
            is_target = phase == self.phase and phase not in FILES and self._count()
            self.inside.append(phase)
            try:
                if is_target:
                    report(step=self.step())
                return original(*args, **kwargs)
            finally:
                self.inside.pop()
                self.seconds[phase].append(time.perf_counter() - start)
                if is_target:
                    report(waits=True)
                    signal.pause()

        setattr(owner, name, wrapped)

    def step(self) -> int:
        """Number of finished steps."""
        return self.context.step if self.context else 0

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.phase in FILES and self.phase in self.inside and event in FILES[self.phase] and self._count():
            report(step=self.step(), moment=f"before {event} {os.path.basename(str(args[0]))}")
            os.kill(os.getpid(), signal.SIGKILL)

    def _count(self) -> bool:
        self.num_calls += 1
        return self.num_calls == self.at


def after(owner: Any, name: str, act: Callable[..., None]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        act(*args)
        return original(*args, **kwargs)

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

    def remember_context(context: Any, *_: Any) -> None:
        killer.context = context

    after(trainer, "train_stage", remember_context)
    sys.addaudithook(killer.hook)
    report(began=os.getpid())
    code = cli.main(["train", *words])
    report(seconds={phase: sum(durations) / len(durations) for phase, durations in killer.seconds.items()})
    return code


def main() -> None:
    import matplotlib.backends.backend_agg  # noqa: F401

    import mmpost.runs.session  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            output_file = os.open(request.pop("said"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output_file, 1)
            os.dup2(output_file, 2)
            code = 1
            try:
                code = train(**request)
            finally:
                if code:
                    traceback.print_exc()
                sys.stdout.flush()
                os._exit(code)
        report(status=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
