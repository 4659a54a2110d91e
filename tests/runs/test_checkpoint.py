"""A complete checkpoint is available at whatever point a save is killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kill_saves import OneNumberModel, mark, save

from mmpost.core import sample_io
from mmpost.data.media.media import media
from mmpost.runs import checkpoint, resume
from mmpost.types import Part, Sample

WORKER = Path(__file__).parents[1] / "support" / "kill_saves.py"


def test_a_save_can_be_killed_at_any_point(tmp_path: Path) -> None:
    """SIGKILL before every file operation: weights, state, renames, deletion."""
    process = subprocess.run([sys.executable, str(WORKER), str(tmp_path)], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    kills = json.loads(process.stdout)
    assert kills["a new step"] > 40
    assert kills["a step again"] > 50


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "checkpoints"
    for step in (1, 2, 10):
        snapshot = checkpoint.Snapshot({"mark": step}, {"rng": [], "mark": step})
        checkpoint.save(root, step, OneNumberModel(step), snapshot)  # type: ignore[arg-type]
    return root


@pytest.mark.parametrize("fault", ["dangling", "missing"])
def test_without_a_valid_last_the_newest_complete_checkpoint_is_used(
    root: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(root / "step-10" / "trainer")  # half deleted
    (root / "step-note").mkdir()
    (root / "last").unlink()
    if fault == "dangling":
        checkpoint.set_link(root / "last", "step-11")
    for path in (
        checkpoint.newest(root),
        Path(checkpoint.resolve_weights(str(root.parent))),
        resume.resumable(str(root.parent))[1],
    ):
        assert path is not None
        assert mark(path) == 2
    warnings = capsys.readouterr().err
    assert "using step-2, the newest complete checkpoint" in warnings
    assert ("points to step-11, which does not exist" in warnings) == (fault == "dangling")
    assert resume.resumable(str(root / "last"))[1] == root / "step-2"
    for file in ("model.safetensors", "trainer/tensors.pt", "trainer/state.json"):
        content = (root / "step-2" / file).read_bytes()
        (root / "step-2" / file).write_bytes(content[: len(content) // 2])
        assert checkpoint.newest(root) == root / "step-1"
        (root / "step-2" / file).write_bytes(content)
    assert checkpoint.newest(root) == root / "step-2"


def test_a_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.newest(tmp_path / "nowhere") is None
    assert checkpoint.resolve_weights(str(tmp_path)) == str(tmp_path)


def test_leftovers_are_removed_by_the_next_save(root: Path) -> None:
    for name in (".step-3", ".step-2.0123"):
        (root / name / "trainer").mkdir(parents=True)
    save(root, 11, 11)
    assert sorted(p.name for p in root.iterdir()) == ["best", "last", "step-11"]


def test_media_keep_the_options_set_by_a_transform() -> None:
    """A window start is drawn by a transform, so the source cannot restore it."""
    medium = media(np.zeros((4, 4, 3), np.uint8), "image")
    sample = Sample("a", (Part("text", "x"), Part("image", medium)))
    window = replace(medium, options=(("names", ("b", "c")), ("start", 3)))
    windowed = replace(sample, prompt=(sample.prompt[0], replace(sample.prompt[1], value=window)), columns={"w": 1.0})
    packed = json.loads(json.dumps(sample_io.pack([windowed])))
    assert sample_io.unpack(packed, {"a": sample}) == [windowed]
    assert packed[0]["options"][0] == []
