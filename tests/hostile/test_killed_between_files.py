"""What a kill between two files left behind: found by scripts/kills.py, each mended where it is made."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from forked import Forked
from kill_parts.kinds import SEVERAL
from small_runs import GROUPS, QUICK

import mmpost
from mmpost.commands.predict import predict
from mmpost.config import run_config
from mmpost.core import run_files
from mmpost.core.processes import end_with
from mmpost.core.run_files import locked, require_unused, wait_until_free
from mmpost.errors import ConfigError, TrainError
from mmpost.listeners import Listeners
from mmpost.listeners.trackers import TensorBoard
from mmpost.runs import base_models, checkpoint, run_state

SHORT = run_config.merge(GROUPS, {"eval": {"before": False, "after": False}, "checkpoint": {"every": 1}})


class Killed(BaseException):
    """Stands for SIGKILL where the process of the test must go on; nothing may handle it."""


def killed_in(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, out: Path, **settings: Any) -> None:
    """Train, and stop without any clean-up when `owner.name` is called."""

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, die)
        patch.setattr("mmpost.runs.run.summary.write", lambda *_: None)
        with pytest.raises(Killed):
            mmpost.train(run_config.merge(SHORT, settings), out=str(out))


def test_the_best_checkpoint_is_linked_after_a_kill_between_saving_and_linking_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"eval": {"every": 1}, "steps": 2}
    killed_in(monkeypatch, run_state.checkpoint, "link_best", tmp_path / "run", **settings)
    root = tmp_path / "run" / "checkpoints"
    assert sorted(p.name for p in root.iterdir()) == ["last", "step-1"]
    mmpost.train(resume=str(tmp_path / "run"))
    assert os.readlink(root / "best") == "step-1"  # no later score is better: they are all 0


def test_what_a_kill_within_the_last_save_left_is_deleted(tmp_path: Path) -> None:
    mmpost.train(SHORT, out=str(tmp_path / "run"))
    root = tmp_path / "run" / "checkpoints"
    before = sorted(p.name for p in root.iterdir())
    (tmp_path / "run" / "summary.json").unlink()
    shutil.copytree(root / "step-1", root / ".step-1.0123")
    (root / ".step-1.0123" / "config.json").unlink()
    for link in (".last", ".best"):
        (root / link).symlink_to("step-2")
    mmpost.train(resume=str(tmp_path / "run"))
    assert sorted(p.name for p in root.iterdir()) == before


def test_a_run_that_was_resumed_for_more_steps_still_owes_its_final_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    mmpost.train(SHORT, {"eval": {"after": True}}, out=str(run))
    with monkeypatch.context() as patch:
        patch.setattr("mmpost.runs.run.summary.write", lambda *_: None)
        mmpost.train(resume=str(run), steps=3)
    assert run_files.read_summary(run)["steps"] == 2
    assert mmpost.train(resume=str(run))["steps"] == 3
    with pytest.raises(ConfigError, match="is at step 3 of 3"):
        mmpost.train(resume=str(run))
    with pytest.raises(ConfigError, match="is at step 2 of 2"):
        mmpost.train(resume=str(run / "checkpoints" / "step-2"), steps=2)


def test_a_folder_in_which_a_kill_cut_off_the_first_file_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml.partial").write_text("steps:")
    require_unused(tmp_path)
    (tmp_path / "other.partial").write_text("")
    with pytest.raises(ConfigError, match="is not empty"):
        require_unused(tmp_path)


@pytest.mark.parametrize("at", range(1, 5))
def test_a_kill_while_a_failed_run_is_replaced_changes_nothing(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "summary.json").write_text('{"status": "failed"}')
    for name in ("config.yaml", "metrics.jsonl", "curves.png", "summary.json.partial"):
        (tmp_path / name).write_text("")
    left, unlink = at, Path.unlink

    def killed(self: Path, missing_ok: bool = False) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed
        unlink(self, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(Killed):
            require_unused(tmp_path)
    require_unused(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"summary.json.partial"}


def test_the_summary_is_written_after_everything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that it calls done is never resumed, so nothing would make what is missing."""
    has_summary, on_end = [], Listeners.on_end

    def watched(self: Listeners, summary: Any) -> None:
        on_end(self, summary)
        has_summary.append((tmp_path / "run" / "summary.json").exists())

    monkeypatch.setattr(Listeners, "on_end", watched)
    mmpost.train(SHORT, out=str(tmp_path / "run"), steps=1)
    assert has_summary == [False]
    assert (tmp_path / "run" / "summary.json").exists()


def test_events_of_tensorboard_are_on_disk_after_each_step(tmp_path: Path) -> None:
    board = TensorBoard()
    board.on_start(tmp_path, {}, 2)
    sizes = []
    for step in (1, 2):
        board.on_metrics({"step": step, "stage": "s", "loss": 0.5})
        sizes.append(sum(file.stat().st_size for file in (tmp_path / "tensorboard").iterdir()))
    board.on_end({})
    assert 0 < sizes[0] < sizes[1]


def test_a_kill_after_some_replies_of_a_sample_costs_none_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "several.py").write_text(SEVERAL)
    rows = [{"id": str(i), "prompt": f"What is {i}?", "solution": "1"} for i in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "replies.jsonl"
    task = {"name": str(tmp_path / "several.py"), "sampling": {"max_tokens": 3}}
    settings = run_config.merge(QUICK, {"task": task, "data": {"test": str(tmp_path / "rows.jsonl")}})
    settings["eval"] = {}
    assert predict([settings, {"out": str(out)}]) == 3
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 9
    for kept, predicted in ((9, 0), (8, 1), (7, 1), (6, 1), (2, 3), (1, 3), (0, 3)):
        out.write_bytes(b"".join(lines[:kept]))
        assert predict([settings, {"out": str(out)}]) == predicted, kept
        assert out.read_bytes() == whole, kept


def test_a_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    def orphan() -> None:
        with locked(tmp_path / "run"):
            time.sleep(60)

    def parent() -> None:
        own = os.getpid()

        def child() -> None:
            end_with(own)
            orphan()

        started = Forked(child, tmp_path / "child.txt")
        (tmp_path / "pid").write_text(str(started.pid))
        started.wait()

    started = Forked(parent, tmp_path / "parent.txt")
    end = time.monotonic() + 20
    while not (tmp_path / "run" / ".lock").exists() and time.monotonic() < end:
        time.sleep(0.01)
    with pytest.raises(ConfigError, match="is in use"), locked(tmp_path / "run"):
        pass
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    wait_until_free(tmp_path / "run")
    with pytest.raises(TrainError, match="has ended"):
        end_with(started.pid)


def test_a_base_is_not_built_in_a_folder_that_a_process_still_writes_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was deleted under that process, and then had two writers."""
    monkeypatch.setenv("MMPOST_CACHE", str(tmp_path))
    recipe = run_config.shipped("bases/tiny")
    partial = tmp_path / "bases" / f".tiny-{base_models._key(recipe)}"

    def left_behind() -> None:
        with locked(partial):
            (partial / "mine").write_text("")
            time.sleep(1)
            assert (partial / "mine").exists()

    def train(recipe: Any, folder: Path) -> None:
        assert not folder.exists()
        folder.mkdir()

    writer = Forked(left_behind, tmp_path / "log.txt")
    while not (partial / "mine").exists():
        time.sleep(0.01)
    monkeypatch.setattr(base_models, "_train", train)
    built = base_models._trained("tiny", recipe)
    assert writer.wait() == 0, writer.output()
    assert built == partial.with_name(partial.name[1:])
    assert "waiting for another mmpost process" in capsys.readouterr().err
    assert checkpoint.newest(partial / "checkpoints") is None
