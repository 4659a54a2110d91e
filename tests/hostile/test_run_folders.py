"""Folders that several commands write to, or that a failed run has left behind."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from small_runs import GROUPS, resume_copy, same_weights

import mmpost
from mmpost.cli import main
from mmpost.config import run_config
from mmpost.core import run_files
from mmpost.core.run_files import LOCK, locked, locked_file, require_unused
from mmpost.errors import ConfigError

QUICK = [
    *(
        "task=visurf",
        "model=random-tiny",
        "steps=1",
        "task.prompts_per_step=2",
        "task.num_generations=2",
        "task.scenes=8",
    ),
    *("task.sampling.max_tokens=4", "eval.before=false", "eval.after=false", "log.progress=false"),
]


def fails(arguments: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command exits with 1 and one line that contains `message`."""
    capsys.readouterr()
    assert main(list(arguments)) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_folder_has_one_writer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", *QUICK, f"out={run}"]) == 0
    before = {p: p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}
    with locked(run):
        fails(["train", f"resume={run}", "steps=2"], "is in use: another mmpost process", capsys)
    with locked(tmp_path / "new"):
        fails(["train", *QUICK, f"out={tmp_path / 'new'}"], "is in use", capsys)
        select = ["select", "task=visurf", "task.inject=false", "by=variance", "model=random-tiny"]
        fails([*select, f"out={tmp_path / 'new'}"], "is in use", capsys)
        fails(["compare", "task=visurf", f"out={tmp_path / 'new'}"], "is in use", capsys)
        fails(["continual", "study=digits", f"out={tmp_path / 'new'}"], "is in use", capsys)
    with locked_file(tmp_path / "replies.jsonl"):
        fails(["predict", "task=visurf", "model=random-tiny", f"out={tmp_path / 'replies.jsonl'}"], "is in use", capsys)
    assert {p: p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()} == before
    assert main(["train", f"resume={run}", "steps=2"]) == 0


def test_a_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK).exists()
    assert not (tmp_path / "a").exists()
    with locked_file(tmp_path / "x.jsonl"):
        pass
    assert not list(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "c"):
        (tmp_path / "c" / "kept").write_text("")
        raise ZeroDivisionError
    assert {p.name for p in (tmp_path / "c").iterdir()} >= {"kept"}
    with locked(tmp_path / "c"):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    """The lock is the operating system's, not the existence of its file."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        with locked(tmp_path):
            os.write(writer, b"x")
            time.sleep(60)
        os._exit(1)
    try:
        assert os.read(reader, 1) == b"x"
        with pytest.raises(ConfigError, match="is in use"), locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        (tmp_path / "written").write_text("")
    assert (tmp_path / "written").exists()


def test_a_run_that_failed_before_its_first_step_can_be_started_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text("def reward(sample, reply):\n    return 1 / 0\n")
    fails(["train", *QUICK, "rewards.mine=broken.py:reward", "out=run"], "ZeroDivisionError", capsys)
    assert json.loads(Path("run/summary.json").read_text())["status"] == "failed"
    assert main(["train", *QUICK, "out=run"]) == 0
    assert "failed before its first step; it is replaced" in capsys.readouterr().err
    assert json.loads(Path("run/summary.json").read_text())["status"] == "done"
    fails(["train", *QUICK, "out=run"], "is not empty", capsys)


@pytest.mark.parametrize(
    "content",
    [
        {"notes.txt": ""},
        {"summary.json": '{"status": "done"}'},
        {"summary.json": '{"status": "failed"}', "checkpoints": ""},
    ],
)
def test_a_folder_with_anything_else_is_not_touched(content: dict[str, str], tmp_path: Path) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match="is not empty"):
        require_unused(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == set(content)


def test_a_failed_run_with_steps_is_kept(tmp_path: Path) -> None:
    run_files.write(tmp_path / "summary.json", b'{"status": "failed"}')
    run_files.write(tmp_path / "metrics.jsonl", b'{"step": 1}\n')
    with pytest.raises(ConfigError, match="is not empty"):
        require_unused(tmp_path)


TASK = """
import torch
import mmpost as mp
from mmpost.tasks.visurf import ViSurf

class MaskGradient:
    def __call__(self, model):
        weight = model.module.lm_head.weight
        mask = (torch.rand_like(weight) < 0.5).to(weight.dtype)
        weight.register_hook(lambda gradient: gradient * mask)

class Masked(ViSurf):
    def stages(self):
        (stage,) = super().stages()
        from dataclasses import replace
        yield replace(stage, name="first", fraction=0.5)
        yield replace(stage, name="second", fraction=0.5, edits=(MaskGradient(),))
"""


def test_edits_of_a_stage_are_the_same_on_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their random numbers come from the run's seed and the stage, not from the step at which they are applied."""
    monkeypatch.chdir(tmp_path)
    Path("masked.py").write_text(TASK)
    task = {
        "name": "./masked.py",
        "prompts_per_step": 2,
        "num_generations": 2,
        "sampling": {"max_tokens": 4},
        "scenes": 8,
    }
    settings = run_config.merge(
        GROUPS, {"eval": {"before": False, "after": False}, "checkpoint": {"every": 1}, "steps": 4}
    )
    settings["task"] = task
    mmpost.train(settings, out="whole")
    assert same_weights(Path("whole"), resume_copy(Path("whole"), 3, Path("copy")))
