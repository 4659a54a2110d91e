"""`mmpost compare` on random weights: which cells are trained, which are reused, and the content of the tables."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmpost.cli import main
from mmpost.errors import ConfigError
from mmpost.studies import cells
from mmpost.studies.cells import Result, Runner
from mmpost.studies.compare import compare, equal_time
from mmpost.studies.study import Study

STUDY = """
task: visurf
model: random-tiny
against: full
metrics: [target/f1, old/f1]
set:
  task: {prompts_per_step: 2, num_generations: 2, scenes: 8, bench_scenes: 4, sampling: {max_tokens: 4}}
  steps: 2
tune: {optim.lr: [1e-4, 1e-3]}
arms:
  plain: {task: {sft_fraction: 1.0}}
  full: {tune: {}}
  broken: {task: {sft_fraction: 1.0}, optim: {lr: 1.0e+38, max_grad_norm: 0}, tune: {}}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "small.yaml").write_text(STUDY)
    return folder


@pytest.fixture(scope="module")
def done(study: Path, forked_cells: None) -> dict[str, Any]:
    arguments = [
        f"study={study / 'small.yaml'}",
        "arms=plain,full",
        "seeds=1",
        "jobs=2",
        "budgets=steps",
        f"out={study / 'out'}",
    ]
    return compare(arguments)


def folders(study: Path) -> dict[str, float]:
    return {p.name: (p / "summary.json").stat().st_mtime for p in (study / "out" / "cells").iterdir() if p.is_dir()}


def test_the_tables_contain_every_arm_seed_and_metric(done: dict[str, Any], study: Path) -> None:
    assert json.loads((study / "out" / "study.json").read_text()) == done
    assert done["samples"] == {"target": 4, "old": 4}
    steps = done["budgets"]["steps"]
    assert list(steps) == ["plain", "full"]
    for arm in steps.values():
        assert arm["steps"] == 2
        assert len(arm["scores"]["target/f1"]["seeds"]) == len(arm["seconds"]) == 1
    assert [point["values"] for point in steps["plain"]["tuning"]] == [{"optim.lr": 1e-4}, {"optim.lr": 1e-3}]
    assert steps["full"]["chosen"] == {}
    assert set(steps["plain"]["difference"]) >= {"target/f1", "old/f1"}
    assert not steps["full"]["difference"]
    assert steps["plain"]["against"] == "full"
    text = (study / "out" / "study.md").read_text()
    assert "| plain - full | " in text
    assert "At equal optimizer steps" in text
    assert "At equal wall time" not in text
    assert (study / "out" / "study.png").stat().st_size > 10_000


def test_at_equal_time_a_faster_arm_gets_more_steps() -> None:
    assert equal_time(60, {"slow": 1.0, "fast": 0.1, "middle": 0.7}) == {"slow": 60, "fast": 600, "middle": 86}


@pytest.mark.slow
def test_both_budgets_and_several_seeds(study: Path, tmp_path: Path, forked_cells: None) -> None:
    arguments = [f"study={study / 'small.yaml'}", "arms=plain,full", "seeds=2", "jobs=2", f"out={tmp_path}"]
    done = compare(arguments)
    assert list(done["budgets"]) == ["steps", "time"]
    pace = {name: arm["seconds_per_step"] for name, arm in done["budgets"]["steps"].items()}
    assert {name: arm["steps"] for name, arm in done["budgets"]["time"].items()} == equal_time(2, pace)
    assert len(done["budgets"]["time"]["plain"]["scores"]["target/f1"]["seeds"]) == 2
    assert "At equal wall time" in (tmp_path / "study.md").read_text()


def test_finished_cells_are_not_run_again(done: dict[str, Any], study: Path) -> None:
    before = folders(study)
    assert not list((study / "out" / "cells").glob("*/checkpoints"))
    arguments = [f"study={study / 'small.yaml'}", "arms=plain,full", "seeds=1", "budgets=steps", f"out={study / 'out'}"]
    repeated = compare(arguments)
    assert folders(study) == before
    assert repeated == done


def test_an_interrupted_cell_is_resumed(tmp_path: Path, forked_cells: None, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Study.model_validate(yaml.safe_load(STUDY))
    interrupted_cell = small.cell("full", {}, 0, 2)
    runner = Runner(tmp_path, "base", "code", log=lambda _: None, keep=True)
    (result,) = runner.run([interrupted_cell])
    file = result.folder / "summary.json"
    before = json.loads(file.read_text())
    file.unlink()  # as after a kill in the last evaluation
    monkeypatch.setattr(cells, "subprocess", subprocess)  # a real process, as for users; all other cells here are forks
    assert runner.run([interrupted_cell])[0].folder == result.folder
    after = json.loads(file.read_text())
    assert (after["status"], after["eval_after"]) == ("done", before["eval_after"])
    assert len((result.folder / "metrics.jsonl").read_text().splitlines()) == 2


def test_an_arm_that_cannot_be_trained_is_named(study: Path, tmp_path: Path, capsys: Any, forked_cells: None) -> None:
    arguments = [
        "compare",
        f"study={study / 'small.yaml'}",
        "arms=broken",
        "seeds=1",
        "budgets=steps",
        f"out={tmp_path}",
    ]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "broken seed=0 steps=2 failed: TrainError" in error


def test_a_run_that_failed_is_the_worst_point_of_a_grid(tmp_path: Path) -> None:
    interrupted_cell = Study.model_validate({"task": "visurf", "arms": {"a": {}}}).cell("a", {}, 0, 1)
    (tmp_path / "summary.json").write_text(json.dumps({"status": "failed", "reason": "TrainError: the loss is nan"}))
    assert Result(interrupted_cell, tmp_path).val_metric("target/f1") == -float("inf")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["arms=a"], "wanted task=NAME"),
        (["task=nothing"], "no study 'nothing'"),
        (["study=nowhere.yaml"], "no such file"),
        (["task=visurf", "arms=sft,sfd"], "the study has the arms sft, grpo"),
        (["task=visurf", "seeds=none"], "seeds=none: wanted a positive integer"),
        (["task=visurf", "budgets=money"], "budgets=money"),
        (["task=visurf", "optm.lr=1"], "did you mean optim.lr"),
        (["task=visurf", "task.sampling.max_token=1"], "did you mean task.sampling.max_tokens"),
    ],
)
def test_wrong_arguments_are_reported_before_any_training(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(arguments)
