"""Continual-learning studies: settings, cells, keys, and what is rejected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmpost.config import parsing, run_config
from mmpost.errors import ConfigError
from mmpost.studies import sequence
from mmpost.studies.cells import Runner
from mmpost.studies.continual import continual
from mmpost.studies.sequence import ContinualStudy
from mmpost.studies.study import Study

STUDY = """
model: tiny
set: {task: {bench_scenes: 4}, steps: 5}
tasks:
  a: {task: visurf, set: {task: {target: [largest], smooth: false}, model: {system: Look.}}}
  b: {task: visurf, set: {task: {target: [bottom]}, steps: 3}, arms: {rl: {optim: {max_grad_norm: 0.5}}}}
general:
  old: {task: visurf, accuracy: old/f1}
arms:
  sft: {task: {sft_fraction: 1.0}, tune: {optim.lr: [1e-3]}}
  rl: {task: {inject: false}}
"""


def study(**changes: Any) -> ContinualStudy:
    return ContinualStudy.model_validate({**yaml.safe_load(STUDY), **changes})


@pytest.fixture
def rows(tmp_path: Path) -> str:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"problem": "how many?", "solution": "3"}) + "\n")
    return str(file)


def test_a_task_has_its_own_settings_then_those_of_the_arm() -> None:
    first, second = sequence.chain(study(), sequence.columns(study()), "rl", {"optim.lr": 1e-3}, 7)
    assert (first.steps, second.steps) == (5, 3)
    assert (first.seed, first.settings["seed"], first.arm, second.arm) == (7, 7, "rl-1-a", "rl-2-b")
    assert (first.settings["optim"]["max_grad_norm"], second.settings["optim"]["max_grad_norm"]) == (1.0, 0.5)
    assert first.settings["optim"]["lr"] == second.settings["optim"]["lr"] == 1e-3
    assert not first.settings["task"]["inject"]
    sft = sequence.chain(study(), sequence.columns(study()), "sft", {}, 0)[1]
    assert (sft.settings["task"]["sft_fraction"], sft.settings["task"]["inject"]) == (1.0, True)


def test_evaluations_are_the_same_for_all_arms_and_after_every_task() -> None:
    columns = sequence.columns(study())
    chains = [sequence.chain(study(), columns, arm, {}, 0) for arm in ("sft", "rl")]
    cells = [one_cell for chain in chains for one_cell in chain] + [sequence.base_cell(study(), columns)]
    tested = [one_cell.settings["eval"]["tasks"] for one_cell in cells]
    assert all(one_cell == tested[0] for one_cell in tested)
    assert {name: one_cell["benches"] for name, one_cell in tested[0].items()} == {
        "a": ["target"],
        "b": ["target"],
        "old": ["old"],
    }
    assert tested[0]["a"]["task"]["sft_fraction"] == 0.0
    assert cells[-1].steps == 0


def test_only_the_weights_carry_over_from_one_task_to_the_next(tmp_path: Path) -> None:
    first, second = sequence.chain(study(), sequence.columns(study()), "rl", {}, 0)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    before, _ = run_config.load([first.settings])
    (run / "config.yaml").write_text(parsing.dump(before.model_dump(mode="json")))
    without_run, _ = run_config.load([second.settings])
    after, _ = run_config.load([run_config.merge(second.settings, {"model": str(run)})])
    assert (after.model.name, after.model.base_model) == (str(run), "tiny")
    assert after.model.system is None
    assert after.task["smooth"]
    model_names = {"name": without_run.model.name, "base_model": without_run.model.base_model}
    assert after.model_copy(update={"model": after.model.model_copy(update=model_names)}) == without_run
    # The learning rate for this base model (configs/visurf-tiny.yaml) still applies, not the one for large models.
    assert after.optim.lr == run_config.load(["task=visurf", "model=tiny"])[0].optim.lr != 1e-6
    # Unresolved settings would inherit those of the first task along with its weights.
    leaked, _ = run_config.load(["task=visurf", f"model={run}"])
    assert (leaked.task["smooth"], leaked.task["target"], leaked.model.system) == (False, ["largest"], "Look.")
    assert leaked.optim.lr == after.optim.lr


def test_a_run_key_covers_all_previous_tasks(tmp_path: Path) -> None:
    def keys(one_cell: ContinualStudy, base: str = "base") -> list[str]:
        chain = sequence.chain(one_cell, sequence.columns(one_cell), "rl", {}, 0)
        runner = Runner(tmp_path, "code")
        runner._bases["tiny", 0, 0] = base
        return [result.folder.name for result in runner._results(chain)]

    plain = keys(study())
    assert plain == keys(study())
    tasks = yaml.safe_load(STUDY)["tasks"]
    tasks["a"]["set"]["optim"] = {"max_grad_norm": 3.0}
    other = keys(study(tasks=tasks))
    assert plain[0] != other[0]
    assert plain[1] != other[1]  # the second task is unchanged, but starts from other weights
    tasks = yaml.safe_load(STUDY)["tasks"]
    tasks["b"]["arms"]["rl"]["optim"] = {"max_grad_norm": 0.7}
    last = keys(study(tasks=tasks))
    assert (plain[0], plain[1] != last[1]) == (last[0], True)
    assert not {*plain} & {*keys(study(), "other")}


def test_an_arm_with_another_task_is_evaluated_by_the_task_of_its_entry(rows: str) -> None:
    task_entry = {
        "task": "grpo",
        "set": {
            "data": {"train": rows, "test": rows},
            "task": {"num_generations": 2, "rewards": {"text.answer_match": 1.0}},
        },
        "arms": {"sft": {"task": "sft"}, "rl": {}},
    }
    loaded = study(
        tasks={"own": task_entry, "b": yaml.safe_load(STUDY)["tasks"]["b"]}, set={}, arms={"sft": {}, "rl": {}}
    )
    columns = sequence.columns(loaded)
    assert (columns[0].key, columns[0].metric, columns[0].settings["data"]) == (
        "own/data",
        "reward",
        {"train": rows, "test": rows},
    )
    sft, rl = (sequence.chain(loaded, columns, arm, {}, 0)[0].settings for arm in ("sft", "rl"))
    assert (
        "num_generations" in sft["task"],
        sft["task"]["name"],
        rl["task"]["name"],
        rl["task"]["num_generations"],
    ) == (
        False,
        "sft",
        "grpo",
        2,
    )
    assert sft["data"] == rl["data"]
    assert sft["eval"]["tasks"]["own"]["task"]["name"] == "grpo"


def test_arguments_select_tasks_order_and_settings() -> None:
    loaded = sequence.load_study(
        "digits", ["large", "far"], ["rl", "sft"], {"steps": 9, "task": {"prompts_per_step": 3}}
    )
    assert (list(loaded.tasks), list(loaded.arms), loaded.against) == (["large", "far"], ["rl", "sft"], "sft")
    columns = sequence.columns(loaded)
    assert [column.key for column in columns] == ["large/target", "far/target", "known/old"]
    for one_cell in sequence.chain(loaded, columns, "rl", {}, 0):
        assert (one_cell.steps, one_cell.settings["task"]["prompts_per_step"]) == (9, 3)
    assert sequence.joint(loaded, columns, "rl", {}, 0) == []  # the joint task covers all tasks of the study
    full_study = sequence.load_study(
        "digits", ["large", "low", "far"], None, {"steps": 9, "task": {"prompts_per_step": 3}}
    )
    (joint,) = sequence.joint(full_study, columns, "sft", {}, 0)
    assert (joint.steps, joint.settings["task"]["prompts_per_step"], joint.settings["task"]["sft_fraction"]) == (
        27,
        3,
        1.0,
    )
    assert len(joint.settings["task"]["target"]) == 3


def test_tasks_without_a_study_use_the_arms_and_settings_of_their_own_study(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = {"visurf": "visurf", "other": "bases.digits"}
    raw = {"set": {"task": {}}, "arms": {"sft": {"optim": {"max_grad_norm": 2}, "tune": {"optim.lr": [1]}}, "grpo": {}}}
    load = Study.load

    def fake(name: str) -> Study:
        return load(name) if name == "visurf" else Study.model_validate({**raw, "task": shipped[name]})

    monkeypatch.setattr(Study, "load", fake)
    loaded = sequence.load_study("", ["visurf", "other"], None, {})
    assert (list(loaded.tasks), list(loaded.arms)) == (["visurf", "other"], ["sft", "grpo"])
    first = sequence.chain(loaded, [], "sft", {}, 0)[0].settings
    assert (first["task"]["sft_fraction"], first["task"]["bench_scenes"]) == (1.0, 320)
    assert sequence.chain(loaded, [], "sft", {}, 0)[1].settings["optim"]["max_grad_norm"] == 2
    with pytest.raises(ConfigError, match="task=other has no arm 'visurf'"):
        sequence.load_study("", ["visurf", "other"], ["visurf"], {})


def test_the_shipped_study_is_valid() -> None:
    loaded = sequence.load_study("digits", [], None, {})
    assert sequence.check(loaded) == "tiny"
    assert {"sft", "rl"} <= set(loaded.arms)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "wanted study=NAME"),
        (["study=nothing"], "no study 'nothing': wanted configs/continual/nothing.yaml"),
        (["study=digits", "tasks=far,fare"], "tasks=far,fare: the study has the tasks far, low, large"),
        (["study=digits", "tasks=far"], "wanted at least two tasks"),
        (["study=digits", "tasks=far,far"], "each task once"),
        (["study=digits", "arms=sft,ppo"], "the study has the arms sft, rl"),
        (["study=digits", "seeds=none"], "seeds=none: wanted a positive integer"),
        (["study=digits", "optm.lr=1"], "did you mean optim.lr"),
        (["tasks=visurf,bases.digits"], "no study 'bases.digits'"),
    ],
)
def test_wrong_arguments_are_reported_before_any_training(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        continual(arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general": {"a": {"task": "visurf"}}}, "names of tasks"),
        ({"arms": {"s f t": {}}}, "names of tasks"),
        ({"general": {"old": {"task": "visurf", "accuracy": "olds/f1"}}}, "target/..., old/..."),
        ({"set": {}, "general": {"old": {"task": "grpo"}}}, "no bench on test"),
        ({"general": {"old": {"task": "visurf", "metric": "old/f1"}}}, "unknown key .*metric"),
        (
            {"model": None, "tasks": {"a": {"task": "visurf"}, "b": {"task": "visurf", "set": {"model": "x"}}}},
            "wanted one model for all tasks",
        ),
    ],
)
def test_an_invalid_study_is_rejected(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(STUDY), **changes}))
    with pytest.raises(ConfigError, match=message):
        continual([f"study={file}", f"out={tmp_path / 'out'}"])
