"""A resumed run is bit-identical to an uninterrupted one."""

from __future__ import annotations

import errno
import json
import os
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
from small_runs import TWO_STAGES, metrics, resume_copy, same_weights

import mmpost
from mmpost.config import parsing, run_config
from mmpost.errors import ConfigError, DataError, TrainError
from mmpost.runs import checkpoint
from mmpost.training import trainer
from mmpost.training.context import TrainingContext


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    mmpost.train(**TWO_STAGES, out=str(out))
    return out


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_resuming_at_any_step_is_bit_identical(step: int, finished_run: Path, tmp_path: Path) -> None:
    run = resume_copy(finished_run, step, tmp_path / "run")
    assert same_weights(run, finished_run)
    assert metrics(run) == metrics(finished_run)
    a, b = (json.loads((r / "summary.json").read_text()) for r in (run, finished_run))
    assert (a["eval_before"], a["eval_after"], a["status"]) == (b["eval_before"], b["eval_after"], "done")


def test_resuming_adapters_is_bit_identical(tmp_path: Path) -> None:
    settings = run_config.merge(TWO_STAGES, {"model": {"lora": {"rank": 2, "dropout": 0.2}}, "steps": 4})
    mmpost.train(**settings, out=str(tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "run", symlinks=True)
    mmpost.train(resume=str(tmp_path / "run" / "checkpoints" / "step-2"))
    assert same_weights(tmp_path / "run", tmp_path / "whole")
    saved = json.loads((tmp_path / "run" / "checkpoints" / "last" / "adapter_config.json").read_text())
    assert saved["target_modules"] == sorted(saved["target_modules"]) != []


def test_only_the_number_of_steps_can_change_on_resume(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run, symlinks=True)
    with pytest.raises(ConfigError, match="found optim; to change it, start a new run"):
        mmpost.train(resume=str(run), optim={"lr": 1.0})
    with pytest.raises(ConfigError, match="is at step 6 of 6; set steps=N for more"):
        mmpost.train(resume=str(run))
    assert mmpost.train(resume=str(run), steps=8)["steps"] == 8
    with pytest.raises(ConfigError, match=r"found none with a config\.yaml"):
        mmpost.train(resume=str(tmp_path / "nowhere"))


def test_a_broken_checkpoint_is_named(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run, symlinks=True)
    file = run / "checkpoints" / "step-3" / "trainer" / "tensors.pt"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError, match="step-3 is not a complete checkpoint"):
        mmpost.train(resume=str(run / "checkpoints" / "step-3"))
    (run / "checkpoints" / "step-2" / "model.safetensors").write_bytes(b"0" * 100)
    with pytest.raises(ConfigError, match="step-2"):
        mmpost.train(resume=str(run / "checkpoints" / "step-2"))


def test_a_full_disk_loses_the_new_checkpoint_but_not_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch_save = torch.save
    saves: list[int] = []

    def failing_save(*args: Any, **kwargs: Any) -> None:
        saves.append(1)
        if len(saves) in (2, 4, 5):
            raise OSError(errno.ENOSPC, "No space left on device")
        torch_save(*args, **kwargs)

    monkeypatch.setattr(checkpoint.torch, "save", failing_save)
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
    """The same run in a new process."""
    file = out.with_suffix(".yaml")
    file.write_text(parsing.dump(TWO_STAGES))
    arguments = [sys.executable, "-m", "mmpost.cli", "train", f"config={file}", f"out={out}"]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(3000):
        if path.exists() or process.poll() is not None:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not come")


def test_a_signal_finishes_the_step_and_saves(finished_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(out)
    wait_for(out / "checkpoints" / "last", process)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "finishing this step" in errors
    assert "resume with: mmpost train resume=" in output
    assert json.loads((out / "summary.json").read_text())["status"] == "stopped"
    resumed = command(["train", f"resume={out}"], out.with_suffix(".log"))
    assert resumed.wait() == 0, resumed.output()
    assert same_weights(out, finished_run)


@pytest.mark.parametrize("step", [2, 4, 5])
def test_a_step_that_was_aborted_is_repeated_with_what_its_rollout_logged(
    step: int, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a second signal during a forward pass: at the first update on a rollout batch (2, 4), and at the second."""
    optimizer_step = trainer.optimizer_step

    def aborted(context: TrainingContext, *args: Any) -> object:
        if context.step == step:
            context.log("loss", 7.0)  # of the part of the step that was done
            os.kill(os.getpid(), signal.SIGTERM)
            raise trainer.Interrupted
        return optimizer_step(context, *args)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "optimizer_step", aborted)
        assert mmpost.train(**TWO_STAGES, out=str(tmp_path / "run"))["status"] == "stopped"
    assert mmpost.train(resume=str(tmp_path / "run"))["status"] == "done"
    assert same_weights(tmp_path / "run", finished_run)
    assert metrics(tmp_path / "run") == metrics(finished_run)


def test_resuming_writes_no_step_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The final save reuses the checkpoint of its step, if one was written."""
    saved: list[int] = []
    save = checkpoint.save

    def recorded_save(root: Path, step: int, *args: Any) -> Path:
        saved.append(step)
        return save(root, step, *args)

    monkeypatch.setattr(checkpoint, "save", recorded_save)
    run = tmp_path / "run"
    mmpost.train(**run_config.merge(TWO_STAGES, {"steps": 3}), out=str(run))
    assert saved == [1, 2, 3]
    mmpost.train(resume=str(run), steps=4)
    assert saved == [1, 2, 3, 4]
