"""Kills saves of a small checkpoint before every single thing that they do to files, and looks at what is left.

Run by test_checkpoint.py in a process of its own, because it forks; prints the number of kills of each scenario.
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

TOUCHES = ("open", "os.", "shutil.")


class Small:
    """A model of one number, which is also in the state, so that a mixture of two checkpoints shows."""

    module = SimpleNamespace(peft_config=None)

    def __init__(self, mark: int) -> None:
        self.mark = mark

    def save(self, folder: Path) -> None:
        folder.mkdir()
        save_file({"mark": torch.tensor(self.mark)}, folder / "model.safetensors")
        (folder / "config.json").write_text("{}")


def save(root: Path, step: int, mark: int, done: Path | None = None) -> None:
    """As a run does it: save, note that it is done, point best, prune."""
    tensors = {"rng": [torch.arange(3)], "mark": mark}
    checkpoint.save(root, step, Small(mark), checkpoint.Snapshot({"mark": mark}, tensors))  # type: ignore[arg-type]
    if done is not None:
        done.touch()
    checkpoint.set_link(root / "best", f"step-{step}")
    checkpoint.prune(root, 1)


def killed(root: Path, at: int, work: Callable[[], None]) -> bool:
    """Do `work` in a child that kills itself before its `at`-th touch of a file in `root`; False: it ended before."""
    child = os.fork()
    if child == 0:
        seen = 0

        def hook(event: str, args: tuple[Any, ...]) -> None:
            nonlocal seen
            if event.startswith(TOUCHES) and any(str(root) in str(a) for a in args):
                seen += 1
                if seen == at:
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


def look(root: Path, allowed: set[int]) -> int:
    """What a resume would find: a whole checkpoint, among `allowed`; all with the name of one are whole."""
    before = sorted(p.name for p in root.iterdir())
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        found = checkpoint.newest(root)
    assert found is not None, f"nothing to resume from: {before}"
    assert not said.getvalue(), f"had to search: {said.getvalue()} {before}"
    assert mark(found) in allowed, f"found {mark(found)}, wanted one of {allowed}: {before}"
    for folder in root.glob("step-*"):
        mark(folder)
    assert sorted(p.name for p in root.iterdir()) == before, "looking changed something"
    return mark(found)


def scenario(base: Path, step: int, rng: random.Random) -> int:
    """Kill the save of `step` over 1 and 2 everywhere, and some of the saves after it; number of kills."""
    kills = 0
    for at in range(1, 1000):
        root, done = base / f"{step}-{at}" / "checkpoints", base / f"{step}-{at}" / "done"
        save(root, 1, 1)
        shutil.copytree(root / "step-1", root / "kept")
        save(root, 2, 2)
        (root / "kept").rename(root / "step-1")
        if not killed(root, at, lambda root=root, done=done: save(root, step, 3, done)):
            break
        kills += 1
        now = look(root, {3} if done.exists() else {2, 3})
        done.unlink(missing_ok=True)
        # The resumed run writes the same step, and is killed as well.
        second = rng.randint(1, 40)
        if killed(root, second, lambda root=root, done=done: save(root, step, 4, done)):
            kills += 1
            now = look(root, {4} if done.exists() else {now, 4})
        save(root, step + 1, 5)
        assert look(root, {5}) == 5
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
