"""`mmpost continual` on random weights: the chain of runs, which are reused, and the content of the files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mmpost.core import run_files
from mmpost.runs import checkpoint
from mmpost.studies.continual import continual

STUDY = """
model: random-tiny
set:
  task: {prompts_per_step: 2, num_generations: 2, scenes: 8, bench_scenes: 4, sampling: {max_tokens: 4}}
  compute: {threads: 1}
  steps: 2
tasks:
  first: {task: visurf, set: {task: {target: [largest]}}}
  second: {task: visurf, set: {task: {target: [bottom]}}}
joint: {task: visurf, set: {task: {target: [largest, bottom]}}}
general:
  old: {task: visurf, accuracy: old/f1}
arms:
  sft: {task: {sft_fraction: 1.0}, tune: {}}
  rl: {task: {inject: false}}
tune: {optim.lr: [1e-4, 1e-3]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, forked_cells: None) -> Path:
    """A study of one arm and one seed that keeps the weights of both tasks."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "small.yaml").write_text(STUDY)
    continual([*study_arguments(folder), "keep=true"])
    return folder


def study_arguments(folder: Path) -> list[str]:
    return [f"study={folder / 'small.yaml'}", "arms=sft", "seeds=1", f"out={folder / 'out'}"]


def cell_folders(folder: Path) -> dict[str, Path]:
    folders_of_cells = [path for path in (folder / "out" / "cells").iterdir() if path.is_dir()]
    return {path.name.rpartition("-")[0]: path for path in folders_of_cells}


def finish_times(folder: Path) -> dict[str, float]:
    return {name: (path / "summary.json").stat().st_mtime for name, path in cell_folders(folder).items()}


def test_each_task_starts_from_the_weights_of_the_previous_one(folder: Path) -> None:
    folders_of_cells = cell_folders(folder)
    assert set(folders_of_cells) == {"base-0", "sft-1-first-0", "sft-2-second-0", "sft-joint-0"}
    first, second = folders_of_cells["sft-1-first-0"], folders_of_cells["sft-2-second-0"]
    summary = run_files.read_summary(second)
    assert (summary["model"], summary["base_model"]) == (str(first), "random-tiny")
    assert summary["base_hash"] == checkpoint.weights_hash(checkpoint.resolve_weights(str(first)))
    assert summary["base_hash"] != checkpoint.weights_hash(checkpoint.resolve_weights(str(second)))
    assert set(summary["eval_after"]) >= {"first/target/f1", "second/target/f1", "old/old/f1"}


def test_finished_runs_are_reused_and_their_scores_land_in_the_right_entries(folder: Path) -> None:
    # Planted scores: with one hit and x wrong ones per sample, F1 is 200 / (2 + x).
    planted = {("base-0", "first"): 8, ("base-0", "second"): 6, ("base-0", "old"): 0}
    planted |= {("sft-1-first-0", "first"): 0, ("sft-1-first-0", "second"): 3, ("sft-1-first-0", "old"): 2}
    planted |= {("sft-2-second-0", "first"): 2, ("sft-2-second-0", "second"): 0, ("sft-2-second-0", "old"): 6}
    planted |= {("sft-joint-0", "first"): 0, ("sft-joint-0", "second"): 2, ("sft-joint-0", "old"): 3}
    for name, path in cell_folders(folder).items():
        file = path / "eval" / "after.jsonl"
        lines = run_files.read_lines(file, run_files.EvalLine)
        for line in lines:
            x = planted[name, line["bench"].partition("/")[0]]
            line["scores"] |= dict(zip(list(line["scores"])[:3], (1.0, float(x), 0.0), strict=True))
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        path.with_suffix(".json").unlink()
    before = finish_times(folder)
    done = continual(study_arguments(folder))
    assert finish_times(folder) == before
    assert json.loads((folder / "out" / "study.json").read_text()) == done
    assert done["samples"] == {"first": 4, "second": 4, "old": 4}
    arm = done["arms"]["sft"]
    assert {name: value["mean"] for name, value in arm["matrix"].items()} == {
        **{"0/1": 20, "0/2": 25, "0/3": 100},
        **{"1/1": 100, "1/2": 40, "1/3": 50},
        **{"2/1": 50, "2/2": 100, "2/3": 25},
        **{"joint/1": 100, "joint/2": 50, "joint/3": 40},
    }
    assert {name: value["mean"] for name, value in arm["measures"].items()} == {
        "AvgAcc": 75,
        "FM": -50,
        "MaxForgetting": 50,
        "ForwardTransfer": 15,
        "LearningAcc": 100,
        "JointAcc": 75,
        "GeneralChange": -75,
    }
    assert arm["steps"] == [2, 2, 4]
    text = (folder / "out" / "study.md").read_text()
    assert "| base | **20.0**" in text
    assert "below 0 is forgetting" in text
    assert (folder / "out" / "study.png").stat().st_size > 10_000


def test_an_interrupted_chain_continues_where_it_stopped(folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "study"
    shutil.copytree(folder, copied, symlinks=True)
    before = finish_times(copied)
    second = cell_folders(copied)["sft-2-second-0"]
    (second / "summary.json").unlink()
    second.with_suffix(".json").unlink()
    shutil.rmtree(second / "checkpoints")  # as after a kill in its first step
    continual([f"study={folder / 'small.yaml'}", "arms=sft", "seeds=1", f"out={copied / 'out'}"])
    after = finish_times(copied)
    assert {name: after[name] for name in after if name != "sft-2-second-0"} == {
        name: before[name] for name in before if name != "sft-2-second-0"
    }
    assert after["sft-2-second-0"] > before["sft-2-second-0"]
    # The weights of this chain are no longer needed; the other cells are unchanged.
    assert {name for name, path in cell_folders(copied).items() if (path / "checkpoints").exists()} == {
        "base-0",
        "sft-joint-0",
    }


@pytest.mark.slow
def test_arms_are_tuned_on_the_first_task_and_compared(tmp_path: Path, forked_cells: None) -> None:
    (tmp_path / "small.yaml").write_text(STUDY)
    done = continual([f"study={tmp_path / 'small.yaml'}", "seeds=2", "jobs=2", f"out={tmp_path / 'out'}"])
    assert list(done["arms"]) == ["sft", "rl"]
    points = done["arms"]["rl"]["tuning"]
    # All are equal, so that the first one is chosen, and the grid goes on beyond it.
    assert [point["values"] for point in points] == [{"optim.lr": 1e-5}, {"optim.lr": 1e-4}, {"optim.lr": 1e-3}]
    assert done["arms"]["sft"]["tuning"] == [{"values": {}, "val": 0.0, "seeds": []}]
    assert set(done["arms"]["sft"]["difference"]) == set(done["meanings"])
    assert not done["arms"]["rl"]["difference"]
    assert len(done["arms"]["rl"]["measures"]["FM"]["seeds"]) == 2
    assert not list((tmp_path / "out" / "cells").glob("*/checkpoints"))
