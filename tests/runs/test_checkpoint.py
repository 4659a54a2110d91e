"""Whatever moment a save is killed at, there is a whole checkpoint to go on from."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kill_saves import Small, mark, save

from mmpost.core import sample_io
from mmpost.data.media.media import media
from mmpost.runs import checkpoint, resume
from mmpost.types import Part, Sample

WORKER = Path(__file__).parents[1] / "support" / "kill_saves.py"


def test_a_save_may_be_killed_anywhere(tmp_path: Path) -> None:
    """SIGKILL before every touch of a file: in the weights, the state, between renames, while deleting."""
    done = subprocess.run([sys.executable, str(WORKER), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout)
    assert kills["a new step"] > 40
    assert kills["a step again"] > 50


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "checkpoints"
    for step in (1, 2, 10):
        checkpoint.save(root, step, Small(step), checkpoint.Snapshot({"mark": step}, {"rng": [], "mark": step}))  # type: ignore[arg-type]
    return root


@pytest.mark.parametrize("fault", ["dangling", "missing"])
def test_without_a_good_last_the_newest_whole_one_is_taken(
    root: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(root / "step-10" / "trainer")  # half deleted
    (root / "step-note").mkdir()
    (root / "last").unlink()
    if fault == "dangling":
        checkpoint.set_link(root / "last", "step-11")
    for found in (
        checkpoint.newest(root),
        Path(checkpoint.resolve_weights(str(root.parent))),
        resume.resumable(str(root.parent))[1],
    ):
        assert found is not None
        assert mark(found) == 2
    said = capsys.readouterr().err
    assert "using step-2, the newest complete checkpoint" in said
    assert ("points to step-11, which does not exist" in said) == (fault == "dangling")
    assert resume.resumable(str(root / "last"))[1] == root / "step-2"
    for file in ("model.safetensors", "trainer/tensors.pt", "trainer/state.json"):
        whole = (root / "step-2" / file).read_bytes()
        (root / "step-2" / file).write_bytes(whole[: len(whole) // 2])
        assert checkpoint.newest(root) == root / "step-1"
        (root / "step-2" / file).write_bytes(whole)
    assert checkpoint.newest(root) == root / "step-2"


def test_a_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.newest(tmp_path / "nowhere") is None
    assert checkpoint.resolve_weights(str(tmp_path)) == str(tmp_path)


def test_leftovers_go_with_the_next_save(root: Path) -> None:
    for name in (".step-3", ".step-2.0123"):
        (root / name / "trainer").mkdir(parents=True)
    save(root, 11, 11)
    assert sorted(p.name for p in root.iterdir()) == ["best", "last", "step-11"]


def test_media_keep_the_options_that_a_transform_gave_them() -> None:
    """Where a window begins is drawn after the sample, so the source cannot give it again."""
    medium = media(np.zeros((4, 4, 3), np.uint8), "image")
    drawn = Sample("a", (Part("text", "x"), Part("image", medium)))
    window = replace(medium, options=(("names", ("b", "c")), ("start", 3)))
    worked_on = replace(drawn, prompt=(drawn.prompt[0], replace(drawn.prompt[1], value=window)), columns={"w": 1.0})
    packed = json.loads(json.dumps(sample_io.pack([worked_on])))
    assert sample_io.unpack(packed, {"a": drawn}) == [worked_on]
    assert packed[0]["options"][0] == []
