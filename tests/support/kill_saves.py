"""Kills saves of a small checkpoint before every file operation, and checks what is left.

Run by test_checkpoint.py in a separate process, because it forks; prints the number of kills per scenario.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mmpost.runs import checkpoint

FILE_EVENTS = ("open", "os.", "shutil.")


class OneNumberModel:
    """A model of one number, also stored in the state, to detect a mixture of two checkpoints."""

    module = SimpleNamespace(peft_config=None)

    def __init__(self, mark: int) -> None:
        self.mark = mark

    def save(self, folder: Path) -> None:
        folder.mkdir()
        save_file({"mark": torch.tensor(self.mark)}, folder / "model.safetensors")
        (folder / "config.json").write_text("{}")


def save(root: Path, step: int, mark: int, done: Path | None = None) -> None:
    """As in a run: save, touch `done`, link best, prune."""
    tensors = {"rng": [torch.arange(3)], "mark": mark}
    checkpoint.save(root, step, OneNumberModel(mark), checkpoint.Snapshot({"mark": mark}, tensors))  # type: ignore[arg-type]
    if done is not None:
        done.touch()
    checkpoint.set_link(root / "best", f"step-{step}")
    checkpoint.prune(root, 1)


def run_and_kill(root: Path, at: int, work: Callable[[], None]) -> bool:
    """Run `work` in a child killed before its `at`-th file operation in `root`; False if it finished before."""
    child = os.fork()
    if child == 0:
        num_operations = 0

        def hook(event: str, args: tuple[Any, ...]) -> None:
            nonlocal num_operations
            if event.startswith(FILE_EVENTS) and any(str(root) in str(a) for a in args):
                num_operations += 1
                if num_operations == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        failed = True
        try:
            work()
            failed = False
        finally:
            if failed:
                traceback.print_exc()
            os._exit(failed)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the save failed"
    return os.WIFSIGNALED(status)


def mark(folder: Path) -> int:
    """The mark of a checkpoint, the same in all its files."""
    snapshot = checkpoint.load(folder)
    marks = {snapshot.state["mark"], snapshot.tensors["mark"], int(load_file(folder / "model.safetensors")["mark"])}
    assert len(marks) == 1, f"{folder} is a mixture of {marks}"
    return marks.pop()


def check_resume(root: Path, allowed: set[int]) -> int:
    """Check what a resume finds: every checkpoint is complete, and the newest has a mark in `allowed`."""
    before = sorted(p.name for p in root.iterdir())
    warnings = io.StringIO()
    with contextlib.redirect_stderr(warnings):
        newest = checkpoint.newest(root)
    assert newest is not None, f"nothing to resume from: {before}"
    assert not warnings.getvalue(), f"had to search: {warnings.getvalue()} {before}"
    assert mark(newest) in allowed, f"found {mark(newest)}, wanted one of {allowed}: {before}"
    for folder in root.glob("step-*"):
        mark(folder)
    assert sorted(p.name for p in root.iterdir()) == before, "reading changed the folder"
    return mark(newest)


def scenario(base: Path, step: int, rng: random.Random) -> int:
    """Kill the save of `step` (after 1 and 2) at every operation, and some later saves; returns the number of kills."""
    kills = 0
    for at in range(1, 1000):
        root, done = base / f"{step}-{at}" / "checkpoints", base / f"{step}-{at}" / "done"
        save(root, 1, 1)
        shutil.copytree(root / "step-1", root / "kept")
        save(root, 2, 2)
        (root / "kept").rename(root / "step-1")
        if not run_and_kill(root, at, lambda root=root, done=done: save(root, step, 3, done)):
            break
        kills += 1
        current = check_resume(root, {3} if done.exists() else {2, 3})
        done.unlink(missing_ok=True)
        # The resumed run saves the same step, and is killed too.
        second_kill = rng.randint(1, 40)
        if run_and_kill(root, second_kill, lambda root=root, done=done: save(root, step, 4, done)):
            kills += 1
            current = check_resume(root, {4} if done.exists() else {current, 4})
        save(root, step + 1, 5)
        assert check_resume(root, {5}) == 5
        left = sorted(p.name for p in root.iterdir())
        assert left == ["best", "last", f"step-{step + 1}"], f"leftovers: {left}"
        assert mark(root / "best") == 5
    return kills


def main() -> None:
    folder = Path(sys.argv[1])
    rng = random.Random(0)
    print(json.dumps({"a new step": scenario(folder, 3, rng), "a step again": scenario(folder, 2, rng)}))


if __name__ == "__main__":
    main()
