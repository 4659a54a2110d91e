"""A run that was stopped and goes on is the run that was never stopped, bit for bit."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import command
from small_runs import TWO_STAGES, metrics, same_weights

import mmpost
from mmpost.config import parsing, run_config
from mmpost.errors import ConfigError, DataError, TrainError
from mmpost.runs import checkpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    mmpost.train(**TWO_STAGES, out=str(out))
    return out


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_going_on_from_any_step_ends_in_the_same_bits(step: int, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run, symlinks=True)
    mmpost.train(resume=str(run / "checkpoints" / f"step-{step}"))
    assert same_weights(run, whole)
    assert metrics(run) == metrics(whole)
    a, b = (json.loads((r / "summary.json").read_text()) for r in (run, whole))
    assert (a["eval_before"], a["eval_after"], a["status"]) == (b["eval_before"], b["eval_after"], "done")


def test_adapters_go_on_in_the_same_bits(tmp_path: Path) -> None:
    settings = run_config.merge(TWO_STAGES, {"model": {"lora": {"rank": 2, "dropout": 0.2}}, "steps": 4})
    mmpost.train(**settings, out=str(tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "run", symlinks=True)
    mmpost.train(resume=str(tmp_path / "run" / "checkpoints" / "step-2"))
    assert same_weights(tmp_path / "run", tmp_path / "whole")


def test_more_steps_and_nothing_else(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run, symlinks=True)
    with pytest.raises(ConfigError, match="found optim: that would be another run"):
        mmpost.train(resume=str(run), optim={"lr": 1.0})
    with pytest.raises(ConfigError, match="is at step 6 of 6; set steps=N for more"):
        mmpost.train(resume=str(run))
    assert mmpost.train(resume=str(run), steps=8)["steps"] == 8
    with pytest.raises(ConfigError, match="no run there"):
        mmpost.train(resume=str(tmp_path / "nowhere"))


def test_a_broken_checkpoint_is_named(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run, symlinks=True)
    file = run / "checkpoints" / "step-3" / "trainer" / "tensors.pt"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError, match="step-3 is not a complete checkpoint"):
        mmpost.train(resume=str(run / "checkpoints" / "step-3"))
    (run / "checkpoints" / "step-2" / "model.safetensors").write_bytes(b"0" * 100)
    with pytest.raises(ConfigError, match="step-2"):
        mmpost.train(resume=str(run / "checkpoints" / "step-2"))


def test_a_full_disk_costs_a_checkpoint_but_not_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = torch.save
    written: list[int] = []

    def fails(*args: Any, **kwargs: Any) -> None:
        written.append(1)
        if len(written) in (2, 4, 5):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*args, **kwargs)

    monkeypatch.setattr(checkpoint.torch, "save", fails)
    with pytest.raises(TrainError, match=r"No space left on device.*last good checkpoint is .*step-3"):
        mmpost.train(**run_config.merge(TWO_STAGES, {"steps": 4}), out=str(tmp_path / "run"))
    assert "checkpoint of step 2 could not be written" in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == ["last", "step-1", "step-3"]


def test_a_run_without_any_gradient_stops(tmp_path: Path) -> None:
    task = {"inject": False, "sft_fraction": 0.0, "policy": {"beta": 0.0}, "minibatches": 1}
    settings = run_config.merge(TWO_STAGES, {"task": task, "max_zero_gradient_steps": 2})
    with pytest.raises(TrainError, match="no gradient in the last 2 steps"):
        mmpost.train(**settings, out=str(tmp_path / "run"))


def start(out: Path) -> subprocess.Popen[str]:
    """The same run in a process of its own."""
    file = out.with_suffix(".yaml")
    file.write_text(parsing.dump(TWO_STAGES))
    words = [sys.executable, "-m", "mmpost.cli", "train", f"config={file}", f"out={out}"]
    return subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(3000):
        if path.exists() or process.poll() is not None:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not come")


def test_a_signal_lets_the_step_finish_and_saves(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(out)
    wait_for(out / "checkpoints" / "last", process)
    process.send_signal(signal.SIGTERM)
    shown, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "finishing this step" in said
    assert "resume with: mmpost train resume=" in shown
    assert json.loads((out / "summary.json").read_text())["status"] == "stopped"
    again = command(["train", f"resume={out}"], out.with_suffix(".log"))
    assert again.wait() == 0, again.output()
    assert same_weights(out, whole)


def test_nothing_is_written_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last save finds the checkpoint of its step there; a stage that ends there is another place to go on from."""
    saved: list[int] = []
    save = checkpoint.save

    def counts(root: Path, step: int, *args: Any) -> Path:
        saved.append(step)
        return save(root, step, *args)

    monkeypatch.setattr(checkpoint, "save", counts)
    run = tmp_path / "run"
    mmpost.train(**run_config.merge(TWO_STAGES, {"steps": 3}), out=str(run))
    assert saved == [1, 2, 3]
    mmpost.train(resume=str(run), steps=4)
    assert saved == [1, 2, 3, 4]
