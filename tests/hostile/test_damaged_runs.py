"""Runs that were copied without links or are damaged: they resume, or one sentence says what is wrong."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import GROUPS, same_weights

import mmpost
from mmpost.cli import main
from mmpost.config import run_config
from mmpost.errors import DataError
from mmpost.runs import checkpoint, resume
from tests.hostile.test_damaged_weights import Attack

ONE_STEP = run_config.merge(
    GROUPS, {"steps": 1, "eval": {"before": False, "after": False}, "log": {"tensorboard": False}}
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    mmpost.train(**ONE_STEP, out=str(out))
    return out


@pytest.fixture(scope="module")
def two_steps(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("runs") / "two"
    shutil.copytree(run, copy, symlinks=True)
    mmpost.train(resume=str(copy), steps=2)
    return copy


def link_as_text(checkpoints: Path) -> None:
    (checkpoints / "last").unlink()
    (checkpoints / "last").write_text("step-1")


def only_last(checkpoints: Path) -> None:
    last_as_folder(checkpoints)
    shutil.rmtree(checkpoints / "step-1")


def last_as_folder(checkpoints: Path) -> None:
    (checkpoints / "last").unlink()
    shutil.copytree(checkpoints / "step-1", checkpoints / "last")


def half_of_last(checkpoints: Path) -> None:
    last_as_folder(checkpoints)
    (checkpoints / "last" / "trainer" / "tensors.pt").unlink()


def empty_file(checkpoints: Path) -> None:
    (checkpoints / "last").unlink()
    (checkpoints / "last").touch()


@pytest.mark.parametrize("change", [last_as_folder, only_last, link_as_text, half_of_last, empty_file])
def test_a_run_copied_without_links_resumes(
    change: Callable[[Path], None], run: Path, two_steps: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    change(tmp_path / "run" / "checkpoints")
    mmpost.train(resume=str(tmp_path / "run"), steps=2)
    assert same_weights(tmp_path / "run", two_steps)
    last = tmp_path / "run" / "checkpoints" / "last"
    assert last.is_symlink()
    assert last.resolve().name == "step-2"
    assert not [p for p in last.parent.iterdir() if p.name.startswith(".")]


def test_what_is_taken_instead_of_last_is_said_once(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    empty_file(tmp_path / "run" / "checkpoints")
    mmpost.train(resume=str(tmp_path / "run"), steps=2)
    assert capfd.readouterr().err.count("last is missing; using step-1") == 1


def test_the_last_of_a_copy_may_be_older_than_another_step(run: Path, tmp_path: Path) -> None:
    """A run that was continued from an earlier checkpoint."""
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    checkpoints = tmp_path / "run" / "checkpoints"
    shutil.copytree(checkpoints / "step-1", checkpoints / "step-9")
    last_as_folder(checkpoints)
    assert resume.resumable(str(tmp_path / "run"))[1] == checkpoints / "last"
    assert checkpoint.resolve_weights(str(tmp_path / "run")) == str(checkpoints / "last")
    shutil.rmtree(checkpoints / "last")
    assert checkpoint.resolve_weights(str(checkpoints / "last")) == str(checkpoints / "step-9")


def with_state(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(trainer: Path) -> None:
        state = json.loads((trainer / "state.json").read_text())
        change(state)
        (trainer / "state.json").write_text(json.dumps(state))

    return apply


def with_tensors(content: Callable[[Path], object]) -> Callable[[Path], None]:
    return lambda trainer: torch.save(content(trainer), trainer / "tensors.pt")


def shorten(file: str, size: int) -> Callable[[Path], object]:
    return lambda trainer: (trainer / file).write_bytes((trainer / file).read_bytes()[:size])


def empty_pickle(trainer: Path) -> None:
    """Of torch's reader it causes an IndexError."""
    with zipfile.ZipFile(trainer / "tensors.pt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(trainer / "tensors.pt", "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(name, b"\x80\x02." if name.endswith("data.pkl") else content)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "state cut off": (shorten("state.json", 200), "not a complete checkpoint (state.json: JSONDecodeError"),
    "state empty": (shorten("state.json", 0), "not a complete checkpoint (state.json: JSONDecodeError"),
    "state binary": (lambda t: (t / "state.json").write_bytes(b"\xff\x00"), "(state.json: UnicodeDecodeError"),
    "state nested": (lambda t: (t / "state.json").write_text("[" * 10**5), "not a complete checkpoint (state.json: "),
    "state a list": (lambda t: (t / "state.json").write_text("[]"), "wanted an object, found list"),
    "state without results": (
        with_state(lambda s: s.pop("results")),
        "damaged (results: Field required)",
    ),
    "state without cursor": (with_state(lambda s: s.pop("cursor")), "damaged (cursor: Field required)"),
    "state with an empty cursor": (with_state(lambda s: s.update(cursor={})), "(cursor.steps_done: Field required)"),
    "state with a text as step": (with_state(lambda s: s.update(step="1")), "(step: Input should be a valid integer)"),
    "state without a format": (with_state(lambda s: s.pop("format")), "state.json is damaged (format: Field required)"),
    "state with a negative cursor": (
        with_state(lambda s: s["cursor"].update(rollout=-1)),
        "(cursor.rollout: Input should be greater than or equal to 0)",
    ),
    "state of another stage": (with_state(lambda s: s.update(stage="x")), "(Value error, stage, stages and plan name"),
    "state of more ranks": (with_state(lambda s: s["buffer"].append(None)), "buffer or metrics are not of 1 ranks"),
    "state with a sample without replies": (
        with_state(lambda s: s.update(buffer=[[{"uid": "1", "columns": {}}]])),
        "(buffer.0.0.replies: Field required)",
    ),
    "tensors cut off": (shorten("tensors.pt", 1000), "not a complete checkpoint (tensors.pt: RuntimeError"),
    "tensors of nothing": (empty_pickle, "not a complete checkpoint (tensors.pt: IndexError"),
    "tensors missing": (lambda t: (t / "tensors.pt").unlink(), "(tensors.pt: FileNotFoundError"),
    "tensors a list": (with_tensors(lambda t: [1]), "wanted a dictionary of tensors, found list"),
    "no generators": (with_tensors(lambda t: {"update": {}, "kept": {}, "rng": []}), "generators of 1 ranks, found 0"),
    "an attack": (with_tensors(lambda t: {"rng": Attack(t / "mark")}), "wanted tensors only, found pickled Python"),
    "a pickle": (
        lambda t: (t / "tensors.pt").write_bytes(pickle.dumps(Attack(t / "mark"), protocol=2)),
        "wanted tensors only, found pickled Python",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_trainer_file_is_told(case: str, run: Path, tmp_path: Path) -> None:
    change, message = DAMAGE[case]
    step = tmp_path / "step-1"
    shutil.copytree(run / "checkpoints" / "step-1" / "trainer", step / "trainer")
    change(step / "trainer")
    with pytest.raises(DataError) as e:
        checkpoint.require_entries(step, checkpoint.load(step))
    assert message in str(e.value)
    assert str(e.value).startswith(str(step))
    assert str(e.value).endswith("use an older one, such as RUN/checkpoints/step-N")
    assert len(str(e.value)) < 600
    assert not (step / "trainer" / "mark").exists()


@pytest.mark.parametrize("case", ["state nested", "state without results", "an attack"])
def test_resuming_from_a_damaged_trainer_file(
    case: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = DAMAGE[case]
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    change(tmp_path / "run" / "checkpoints" / "step-1" / "trainer")
    assert main(["train", f"resume={tmp_path / 'run'}", "steps=2"]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("content", ['{"step": ', "[]"])
def test_a_damaged_state_stops_an_evaluation_too(
    content: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    (tmp_path / "run" / "checkpoints" / "step-1" / "trainer" / "state.json").write_text(content)
    assert main(["eval", "task=visurf", f"model={tmp_path / 'run'}", "eval.max_samples=1"]) == 1
    assert "state.json" in capsys.readouterr().err


@pytest.mark.parametrize("content", ['{"status": ', "[]"])
def test_a_damaged_summary_is_told(content: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    (tmp_path / "run" / "summary.json").write_text(content)
    for arguments in (["train", f"resume={tmp_path / 'run'}"], ["export", f"model={tmp_path / 'run'}", "out=unused"]):
        assert main(arguments) == 1
        assert f"{tmp_path / 'run' / 'summary.json'} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("config", ["model: null\ntask: {name: visurf}\n", "model: {name: a}\ntask: [1]\n", "{}"])
def test_a_damaged_configuration_is_named(
    config: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    (tmp_path / "run" / "config.yaml").write_text(config)
    for command in (
        ["export", f"model={tmp_path / 'run'}", f"out={tmp_path / 'x'}"],
        ["eval", "task=visurf", f"model={tmp_path / 'run'}"],
    ):
        assert main(command) == 1
        assert "config.yaml is damaged: wanted" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["nowhere", "/dev/zero", "."])
def test_a_state_that_is_no_file_is_told(
    place: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    state = tmp_path / "run" / "checkpoints" / "step-1" / "trainer" / "state.json"
    state.unlink()
    state.symlink_to(place)
    assert main(["train", f"resume={state.parents[1]}", "steps=2"]) == 1
    assert "is not a complete checkpoint (state.json is missing, or not a file)" in capsys.readouterr().err
