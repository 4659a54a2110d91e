"""A full disk: the message says so, names the path and what is kept, and nothing half written stays."""

from __future__ import annotations

import errno
import shutil
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from safetensors import SafetensorError
from small_runs import GROUPS
from tensorboard.summary.writer.record_writer import RecordWriter

import mmpost
from mmpost.cli import main
from mmpost.config import run_config
from mmpost.errors import TrainError
from mmpost.listeners.base import Listeners
from mmpost.listeners.trackers import TensorBoard
from mmpost.models.chat.model import ChatModel
from mmpost.runs import summary

SETTINGS = run_config.merge(
    GROUPS, {"eval": {"before": False, "after": False}, "log": {"tensorboard": False}, "checkpoint": {"every": 1}}
)
save = ChatModel.save


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def rust_error(*_: object) -> None:
    """As safetensors raises it."""
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def os_error(path: Path, *_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def torch_error(*_: object) -> None:
    """As torch.save raises it: without a reason."""
    raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 3904 vs 3798")


def failing_save(error: Callable[..., None], from_call: int) -> Callable[[ChatModel, Path], None]:
    calls: list[Path] = []

    def save_or_fail(model: ChatModel, folder: Path) -> None:
        calls.append(folder)
        save(model, folder)
        if len(calls) >= from_call:
            error(folder)

    return save_or_fail


@pytest.mark.parametrize("error", [rust_error, os_error, torch_error])
def test_a_full_disk_at_the_end_names_what_is_kept(
    error: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ChatModel, "save", failing_save(error, 2))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, 0 if error is torch_error else 10**12))
    run = tmp_path / "run"
    with pytest.raises(TrainError) as e:
        mmpost.train(**SETTINGS, out=str(run))
    kept = run / "checkpoints" / "step-1"
    assert f"step 2 could not be written: disk full: {run / 'checkpoints'} has no room" in str(e.value)
    assert f"the last good checkpoint is {kept}, which is kept; make room, then mmpost train resume={run}" in str(
        e.value
    )
    assert sorted(p.name for p in kept.parent.iterdir()) == ["last", "step-1"]


def test_a_full_disk_in_between_does_not_end_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Path] = []

    def save_or_fail(model: ChatModel, folder: Path) -> None:
        calls.append(folder)
        if len(calls) == 1:
            rust_error()
        save(model, folder)

    monkeypatch.setattr(ChatModel, "save", save_or_fail)
    mmpost.train(**SETTINGS, out=str(tmp_path / "run"))
    assert "disk full" in (error := capsys.readouterr().err)
    assert "training continues, there is no checkpoint yet" in error
    assert (tmp_path / "run" / "checkpoints" / "last").resolve().name == "step-2"


def test_an_export_on_a_full_disk_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ChatModel, "save", failing_save(rust_error, 1))
    assert main(["export", "model=random-tiny", f"out={tmp_path / 'out'}"]) == 1
    assert f"mmpost: disk full: {tmp_path / 'out'} (" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_other_files_on_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(summary, "write", os_error)
    with pytest.raises(TrainError, match=r"disk full: cannot write .*make room, then mmpost train resume="):
        mmpost.train(**SETTINGS, out=str(tmp_path / "run"))


def test_tensorboard_on_a_full_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its thread would print a traceback; errors of other threads are printed as ever."""
    printed: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", hook := printed.append)
    monkeypatch.setattr(RecordWriter, "write", os_error)
    listeners = Listeners([TensorBoard()])
    listeners.on_start(tmp_path, {}, 30)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(30):
            listeners.on_metrics({"step": step, "loss": 1.0})
        other = threading.Thread(target=os_error, args=(tmp_path,))
        other.start()
        other.join()
        listeners.on_end({})
    (message,) = (str(one.message) for one in caught)
    assert message.startswith(
        "the listener TensorBoard failed in on_metrics (OSError: [Errno 28] No space left on device"
    )
    assert [args.thread for args in printed] == [other]
    assert threading.excepthook is hook
