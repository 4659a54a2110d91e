"""The kinds of runs that are killed: tiny ones, of at most three seconds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kill_parts import forks
from kill_parts.same import PLACEHOLDER
from mmpost.core.run_files import read_summary

QUIET = ("model=random-tiny", "log.progress=false")
PLAIN = ("log.tensorboard=false", "eval.before=false", "eval.after=false")
SCENES = ("task.prompts_per_step=2", "task.num_generations=2", "task.scenes=8", "task.sampling.max_tokens=4")
ROWS = ("data.train={inputs}/rows.jsonl", "task.prompts_per_step=2")
EACH = ("checkpoint.every=1",)
"""A checkpoint after each step."""
BASE: dict[str, Any] = {
    "task": {"name": "bases.digits", "prompts_per_step": 2, "scenes": 16},
    "model": "random-tiny",
    "steps": 3,
    "optim": {"lr": 2e-3},
    "eval": {"before": False, "after": False},
    "log": {"samples_every": 0, "progress": False, "tensorboard": False},
    "checkpoint": {"every": 1},
}
STUDY: dict[str, Any] = {
    "task": "visurf",
    "model": "random-tiny",
    "set": {
        "task": {"prompts_per_step": 2, "num_generations": 2, "scenes": 8, "sampling": {"max_tokens": 4}},
        "steps": 2,
        "eval": {"max_samples": 2},
        "checkpoint": {"every": 1},
    },
    "arms": {"sft": {"task": {"sft_fraction": 1.0}}, "rl": {"task": {"inject": False}}},
}


@dataclass(frozen=True)
class Kind:
    """A kind of run. In its arguments {out} is in the folder of a seed, {inputs} the folder of shared inputs."""

    name: str
    command: tuple[str, ...]
    weight: float = 1.0
    """How often it is drawn, relative to the others."""
    again: tuple[str, ...] = ()
    """What a user runs to go on; empty: the same command. {resume}: `resume=` once the run has a config.yaml."""
    prepare: Callable[[Path, Path], None] | None = None
    """Fills the folder of a seed before the first command, given the shared inputs."""
    own_cache: bool = False
    """It writes to a cache of its own rather than to the shared one."""
    curves: bool = False
    """It draws curves.png, which takes a second; the others write a placeholder."""
    processes: bool = False
    """It starts processes, here forks, that a kill may leave behind."""
    waits: bool = False
    """A second process waits for the first one instead of being refused."""
    may_leave: str = ""
    """Folders of this name may be left over."""
    whole: bool = True
    """It works as a whole command, too."""

    def arguments(self, work: Path, inputs: Path, first: bool) -> list[str]:
        """The command line: the first one, or that to go on."""
        out = work / "run"
        words = self.command if first or not self.again else self.again
        if words == ("{resume}",):
            # The configuration of a run that failed before its first step is not that of the corrected command.
            resumes = (out / "config.yaml").is_file() and read_summary(out).get("status") != "failed"
            words = ("train", "resume={out}") if resumes else self.command
        return [word.format(out=out, inputs=inputs) for word in words]

    def environment(self, work: Path, inputs: Path) -> dict[str, str]:
        return {"MMPOST_CACHE": str(work / "cache" if self.own_cache else inputs / "cache")}

    def run(self, arguments: Sequence[str]) -> int:
        """The work of a forked child."""
        from mmpost import cli
        from mmpost.listeners import curves
        from mmpost.runs import base_models
        from mmpost.studies import cells

        if not self.curves:
            curves.draw = _placeholder
        if self.processes:
            base_models.subprocess = cells.subprocess = SimpleNamespace(run=_run, Popen=ForkedCommand)  # type: ignore[assignment]
        if arguments[0] == "base":
            return _build_base()
        return cli.main(arguments)


def _train(name: str, *words: str, **options: Any) -> Kind:
    return Kind(name, ("train", *words, *QUIET, "out={out}"), again=("{resume}",), **options)


def _placeholder(lines: Any, path: Path, title: str = "") -> None:
    path.write_bytes(PLACEHOLDER)


def _build_base() -> int:
    from mmpost.config import run_config
    from mmpost.runs import base_models

    shipped = run_config.shipped
    run_config.shipped = lambda name: BASE if name == "bases/kills" else shipped(name)
    print(base_models.resolve("kills", 0))
    return 0


def _share_models(work: Path, inputs: Path) -> None:
    """A cache of its own, except for the random model, which takes a while to make."""
    (work / "cache").mkdir()
    (work / "cache" / "random").symlink_to(inputs / "cache" / "random")


def _finished_run(work: Path, inputs: Path) -> None:
    shutil.copytree(inputs / "finished" / "run", work / "run", symlinks=True)


def _failed_run(work: Path, inputs: Path) -> None:
    """What a run leaves that failed before its first step."""
    run = work / "run"
    (run / "eval").mkdir(parents=True)
    (run / "samples" / "media").mkdir(parents=True)
    (run / "config.yaml").write_text("steps: 1\n")
    (run / "eval" / "before.jsonl").write_text("{}\n")
    (run / "summary.json").write_text(json.dumps({"status": "failed"}))


SFT = ("task=sft", *ROWS, *EACH)
GRPO = (
    *("task=grpo", *ROWS, "task.num_generations=2", "task.sampling.max_tokens=4", *EACH),
    "rewards.spread={inputs}/spread.py:spread",
)
FINISHED = ("train", *SFT, "data.test={inputs}/rows.jsonl", *PLAIN[:2], "eval.max_samples=2", "steps=2", *QUIET)
"""The run that `extend` continues."""
PREDICT = ("predict", QUIET[0], "data.test={inputs}/rows.jsonl", "compute.rollout_batch_size=2", "out={out}.jsonl")
KINDS = (
    _train(
        "train",
        *("task=visurf", *SCENES, "eval.max_samples=2", "eval.every=2", "checkpoint.every=2", "steps=4"),
        curves=True,
        weight=2,
    ),
    _train(
        "stages",
        *("task=visurf", *SCENES, *PLAIN, *EACH, "steps=4"),
        *("task.sft_fraction=0.5", "task.minibatches=2", "task.policy.beta=0.1"),
        weight=2,
    ),
    _train("save", *SFT, *PLAIN, "checkpoint.keep=1", "steps=6", weight=3),
    _train("lora", *GRPO, *PLAIN, "model.lora.rank=2", "steps=3"),
    _train(
        "reference",
        *("task=preference", "task.scenes=4", "task.prompts_per_step=2", *PLAIN, *EACH, "steps=4"),
        prepare=_share_models,
        own_cache=True,
    ),
    _train("measure", *GRPO, *PLAIN, "select.by=difficulty", "select.k=2", "steps=2"),
    Kind("extend", ("train", "resume={out}", "steps=4"), prepare=_finished_run),
    _train("replace", *SFT, *PLAIN, "steps=2", prepare=_failed_run),
    Kind("predict", (*PREDICT, "task=grpo", "task.sampling.max_tokens=6")),
    Kind("replies", (*PREDICT, "task={inputs}/several.py", "task.sampling.max_tokens=6")),
    Kind(
        "select",
        ("select", *GRPO[:-2], QUIET[0], GRPO[-1], "by=difficulty", "select.k=2", "out={out}"),
        weight=2,
    ),
    Kind("base", ("base",), own_cache=True, processes=True, waits=True, whole=False, weight=2),
    Kind(
        "study",
        ("compare", "study={inputs}/study.yaml", "seeds=1", "budgets=steps", "out={out}"),
        processes=True,
        # The weights of a finished run, which a study deletes, and cannot tell from those that keep=true kept.
        may_leave="checkpoints",
        whole=False,
    ),
)


def write_inputs(inputs: Path) -> None:
    """The files that the runs share."""
    (inputs / "cache").mkdir(parents=True, exist_ok=True)
    turns = [[{"role": "user", "content": f"What is {i}?"}, {"role": "assistant", "content": str(i)}] for i in range(6)]
    rows = [json.dumps({"id": str(i), "messages": messages}) + "\n" for i, messages in enumerate(turns)]
    (inputs / "rows.jsonl").write_text("".join(rows))
    (inputs / "spread.py").write_text(SPREAD)
    (inputs / "several.py").write_text(SEVERAL)
    (inputs / "study.yaml").write_text(json.dumps(STUDY))


SPREAD = """
def spread(sample, reply):
    return sum(map(ord, reply.text)) % 7 / 7
"""
SEVERAL = """
from dataclasses import replace

import mmpost as mp
from mmpost.tasks.grpo import Grpo


class Several(Grpo):
    def benches(self, split):
        (bench,) = super().benches(split)
        drop, _, score = bench.transforms
        return [replace(bench, transforms=(drop, mp.Generate(n=3, sampling=self.sampling), score))]
"""


class ForkedCommand:
    """Stands for subprocess.Popen: forks instead of starting an interpreter, which imports torch for seconds."""

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        assert command[1:3] == ["-m", "mmpost.cli"], command
        sys.stdout.flush()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._be_child(command[3:], **options)

    def _be_child(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str] | None = None,
        stdout: Any = None,
        preexec_fn: Callable[[], None] | None = None,
        **_: Any,
    ) -> None:
        from mmpost import cli

        code = 1
        try:
            if preexec_fn is not None:
                preexec_fn()
            if stdout is not None:
                forks.redirect(Path(stdout.name))
            os.environ.update(env or {})
            code = cli.main(arguments)
            forks.COUNTED[0].report(forks.COUNTED[0].counts())
        except BaseException:  # noqa: BLE001  (the parent only gets the exit status)
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _run(command: Sequence[str], check: bool = False, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.CompletedProcess(command, ForkedCommand(command, **options).wait())
