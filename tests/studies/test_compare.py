"""`mmpost compare` on random weights: which cells are trained, which are reused, and the content of the tables."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmpost.cli import main
from mmpost.config import run_config
from mmpost.errors import ConfigError, DataError
from mmpost.runs.configured_task import ConfiguredTask
from mmpost.studies import cells
from mmpost.studies.cells import Runner
from mmpost.studies.compare import compare, equal_amount
from mmpost.studies.results import Result
from mmpost.studies.study import Study, Variant

STUDY = """
task: visurf
model: random-tiny
against: full
metrics: [target/f1, old/f1]
set:
  task: {prompts_per_step: 2, num_generations: 2, scenes: 8, bench_scenes: 4, sampling: {max_tokens: 4}}
  steps: 2
tune: {optim.lr: [1e-4, 1e-3]}
widen: 0
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
    assert steps["plain"]["spent"] == {
        "labels": 4,
        "rollouts": 0,
        "generated": 0,
        "trained": steps["plain"]["spent"]["trained"],
    }
    assert steps["full"]["spent"] | {"trained": 0} == {"labels": 4, "rollouts": 8, "generated": 32, "trained": 0}
    assert steps["full"]["chosen"] == {}
    assert set(steps["plain"]["difference"]) >= {"target/f1", "old/f1"}
    assert not steps["full"]["difference"]
    assert steps["plain"]["against"] == "full"
    text = (study / "out" / "study.md").read_text()
    assert "| plain - full | " in text
    assert "At equal optimizer steps" in text
    assert "At equal wall time" not in text
    assert "## Claims" not in text
    assert (study / "out" / "study.png").stat().st_size > 10_000


def test_at_equal_time_a_faster_arm_gets_more_steps() -> None:
    slow, fast, middle = (Variant(name) for name in ("slow", "fast", "middle"))
    assert equal_amount(60, {slow: 1.0, fast: 0.1, middle: 0.7}) == {slow: 60, fast: 600, middle: 86}


@pytest.mark.slow
def test_both_budgets_and_several_seeds(study: Path, tmp_path: Path, forked_cells: None) -> None:
    arguments = [f"study={study / 'small.yaml'}", "arms=plain,full", "seeds=2", "jobs=2", f"out={tmp_path}"]
    done = compare([*arguments, "budgets=steps,time,tokens"])
    assert list(done["budgets"]) == ["steps", "time", "tokens"]
    pace = {Variant(name): arm["seconds_per_step"] for name, arm in done["budgets"]["steps"].items()}
    assert {Variant(name): arm["steps"] for name, arm in done["budgets"]["time"].items()} == equal_amount(2, pace)
    assert len(done["budgets"]["time"]["plain"]["scores"]["target/f1"]["seeds"]) == 2
    tokens = {n: a["spent"]["generated"] + a["spent"]["trained"] for n, a in done["budgets"]["tokens"].items()}
    assert tokens["plain"] == pytest.approx(tokens["full"], rel=0.5)
    assert done["budgets"]["tokens"]["full"]["steps"] == 2
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
    benches = ConfiguredTask.load(run_config.load([dict(interrupted_cell.settings)])[0]).benches("test")
    runner = Runner(tmp_path, "code", {b.name: b.summary for b in benches}, log=lambda _: None, keep=True)
    (result,) = runner.run([interrupted_cell])
    file = result.folder / "summary.json"
    before = json.loads(file.read_text())
    file.unlink()  # as after a kill in the last evaluation
    result.file.unlink()
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


DIAL = """
task: visurf
model: random-tiny
metrics: [target/f1, old/f1]
set:
  task: {prompts_per_step: 2, num_generations: 2, scenes: 8, bench_scenes: 4, sampling: {max_tokens: 4}}
  steps: 2
widen: 0
checkpoints: 2
relation: [target/f1, old/f1]
dial: {much: {}, little: {task: {scenes: 4}}}
arms:
  # The second rate ends in a loss that is not finite.
  sft: {task: {sft_fraction: 1.0}, tune: {optim.lr: [1e-3, 1.0e+38]}, optim: {max_grad_norm: 0}}
  grpo: {levels: [much]}
  visurf: {}
predict:
  learned: {arm: visurf, against: sft, metric: old/f1, gap: 5, at: much, control: little, matched: target/f1}
  plain: {arm: visurf, against: grpo, metric: target/f1, gap: 5, at: much}
"""


def test_levels_of_an_arm_runs_that_fail_and_a_relation(tmp_path: Path, forked_cells: None) -> None:
    (tmp_path / "dial.yaml").write_text(DIAL)
    arguments = [f"study={tmp_path / 'dial.yaml'}", "seeds=1", "jobs=2", "budgets=steps", f"out={tmp_path / 'out'}"]
    done = compare(arguments)
    steps = done["budgets"]["steps"]
    assert list(steps) == ["sft @ much", "grpo @ much", "visurf @ much", "sft @ little", "visurf @ little"]
    assert steps["sft @ much"]["chosen"] == {"optim.lr": 1e-3}
    assert list(done["claims"]["plain"]["dose"]) == ["much"]
    assert list(done["claims"]["learned"]["dose"]) == ["much", "little"]
    arms = [run["arm"] for run in done["relation"]["runs"]]
    assert arms == list(steps)
    assert done["relation"]["correlation"]["seeds"] == [0.0]
    assert "Rank correlation of target/f1 and old/f1 over all 5 runs" in (tmp_path / "out" / "study.md").read_text()
    cells = [json.loads(file.read_text()) for file in (tmp_path / "out" / "cells").glob("*.json")]
    assert sum("failure" in cell for cell in cells) == 4  # at both levels, in tuning and afterwards
    assert all(cell["wall"] > cell.get("seconds", 0.0) for cell in cells)
    paths = {cell["arm"]: [point["step"] for point in cell["curve"]] for cell in cells if "curve" in cell}
    assert paths == {"sft": [0, 1, 2], "visurf": [0, 1, 2]}


def test_a_run_that_failed_is_the_worst_point_of_a_grid(tmp_path: Path) -> None:
    interrupted_cell = Study.model_validate({"task": "visurf", "arms": {"a": {}}}).cell("a", {}, 0, 1)
    result = Result(interrupted_cell, tmp_path / "a")
    result.folder.mkdir()
    summary = {"status": "failed", "reason": "TrainError: the loss is nan", "base_hash": "x"}
    (result.folder / "summary.json").write_text(json.dumps(summary))
    Runner(tmp_path, "code")._record(result)
    assert result.failure == "TrainError: the loss is nan"
    assert result.val_metric("target/f1") == -float("inf")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["arms=a"], "wanted task=NAME"),
        (["task=nothing"], "no study 'nothing'"),
        (["study=nowhere.yaml"], "no such file"),
        (["task=visurf", "arms=sft,sfd"], "the study has the arms sft, grpo"),
        (["task=visurf", "seeds=none"], "seeds=none: wanted a positive integer"),
        (["task=visurf", "budgets=money"], "budgets=money"),
        (["task=visurf", "levels=much"], "levels=much: the study has "),
        (["task=visurf", "budgets=time"], "budgets=time: wanted steps, then"),
        (["task=visurf", "pilot=maybe"], "pilot=maybe: wanted true or false"),
        (["task=visurf", "first_seed=98"], "first_seed=98: wanted seeds from 0 to 99"),
        (["task=visurf", "optm.lr=1"], "did you mean optim.lr"),
        (["task=visurf", "task.sampling.max_token=1"], "did you mean task.sampling.max_tokens"),
    ],
)
def test_wrong_arguments_are_reported_before_any_training(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(arguments)


def test_a_damaged_file_of_a_cell_is_named(tmp_path: Path) -> None:
    cell = Study.model_validate({"task": "visurf", "arms": {"a": {}}}).cell("a", {}, 0, 1)
    (tmp_path / "a.json").write_text('{"arm": "a"')
    with pytest.raises(DataError, match=r"a\.json is damaged .*; delete it to run the cell again"):
        Result(cell, tmp_path / "a").successful()


def test_the_result_needs_the_files_of_cells_only(done: dict[str, Any], study: Path, tmp_path: Path) -> None:
    """As after a clone of what was committed: the folders of the runs are not there."""
    (tmp_path / "cells").mkdir()
    for file in (study / "out" / "cells").glob("*.json"):
        shutil.copy(file, tmp_path / "cells")
    arguments = [f"study={study / 'small.yaml'}", "arms=plain,full", "seeds=1", "budgets=steps", f"out={tmp_path}"]
    assert compare(arguments) == done
    assert not [path for path in (tmp_path / "cells").iterdir() if path.is_dir()]
