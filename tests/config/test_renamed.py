"""Old names: stored runs still load; a user who types one gets an error with the new name."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mmpost.config import registry, renamed, run_config
from mmpost.config.run_config import RunConfig, fields
from mmpost.core import run_files, sample_io
from mmpost.core.samples import Part, Reply, Sample
from mmpost.errors import ConfigError
from mmpost.models.embedding.spec import EmbeddingSpec
from mmpost.runs.configured_task import make_task
from mmpost.types import Task

STORED = Path(__file__).with_name("config_before_renaming.yaml")
"""The config.yaml of a default run of `task=visurf` with the old names."""
ROOT = Path(__file__).resolve().parents[2]


def test_a_run_with_old_names_loads_with_all_its_settings(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(STORED, tmp_path / "config.yaml")
    config, _ = run_config.load([f"config={tmp_path / 'config.yaml'}"])
    stored_config = yaml.safe_load(STORED.read_text())
    assert config.optim.max_grad_norm == stored_config["optim"]["clip"]
    assert config.compute.max_tokens_per_microbatch == stored_config["compute"]["micro_tokens"]
    assert config.max_zero_gradient_steps == stored_config["stop_if_flat"]
    assert config.model.attn_implementation == stored_config["model"]["attention"]
    task = make_task(config).model_dump()
    assert (task["num_generations"], task["prompts_per_step"]) == (
        stored_config["task"]["group"],
        stored_config["task"]["prompts"],
    )
    assert task["policy"]["loss_type"] == stored_config["task"]["policy"]["loss"]
    assert run_config.run_of(str(tmp_path))["optim"]["max_grad_norm"] == 1.0


def test_a_user_file_with_an_old_name_is_refused_with_the_new_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("task: visurf\noptim: {clip: 0.5}\n")
    with pytest.raises(ConfigError, match=r"unknown key optim\.clip: renamed to optim\.max_grad_norm"):
        run_config.load([f"config={file}"])


@pytest.mark.parametrize(
    ("argument", "new"),
    [
        ("compute.share=off", "compute.reuse"),
        ("model.lora.parts=[language]", "model.lora.target_groups"),
        ("stages.rl.share=1", "stages.rl.fraction"),
        ("stop_if_flat=3", "max_zero_gradient_steps"),
        ("task.group=4", "task.num_generations"),
        ("task.warm_up=1", "task.sft_fraction"),
        ("task.policy.loss=gspo", "task.policy.loss_type"),
    ],
)
def test_an_argument_with_an_old_name_is_refused_with_the_new_name(argument: str, new: str) -> None:
    with pytest.raises(ConfigError, match=rf"renamed to {new.replace('.', '[.]')}"):
        make_task(run_config.load(["task=visurf", argument])[0])


def test_stored_parts_cursors_and_models_load() -> None:
    reply = {"parts": [{"kind": "text", "value": "yes", "role": "assistant"}], "origin": "policy"}
    stored = [{"uid": "a", "columns": {}, "replies": [{**reply, "token_ids": [1], "scores": {}, "columns": {}}]}]
    (sample,) = sample_io.unpack(stored, {"a": Sample("a", ())}) or []
    assert sample.replies == (Reply((Part("text", "yes", "assistant"),), "policy", (1,)),)
    state = renamed.upgrade_state({"step": 3, "cursor": {"done": 3, "place": 1, "drawn": 6, "idle": 0, "rollout": 2}})
    assert state["cursor"] == {
        **{"steps_done": 3, "updates_done": 1, "samples_drawn": 6, "zero_gradient_steps": 0, "rollout": 2}
    }
    spec = renamed.upgrade_spec({"model": "embedder", "towers": {"image": {"name": "hub"}}, "dim": 8})
    assert spec.pop("model") == "embedding"
    assert list(EmbeddingSpec.model_validate(spec).encoders) == ["image"]


def test_metrics_of_an_old_run_load_under_new_names(tmp_path: Path) -> None:
    old = {"step": 1, "loss": 0.5, "reward/flat_groups": 0.25, "data/skipped": 2.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(old) + "\n")
    new = {"step": 1, "loss": 0.5, "reward/zero_std_groups": 0.25, "data/skipped_rows": 2.0}
    assert run_files.read_metrics(tmp_path) == [new]


def test_transforms_of_a_recording_are_compared_under_new_names() -> None:
    stored_config = [
        {"class": "Crop", "kind": "image", "length": 4, "how": "start"},
        {"class": "Answer", "text": "mmpost.tasks.digits_base.thoughtful"},
    ]
    assert renamed.upgrade_described(json.loads(json.dumps(stored_config))) == [
        {"class": "Crop", "modality": "image", "length": 4, "position": "start"},
        {"class": "ReplyFromTruth", "text": "mmpost.tasks.bases.digits.thoughtful"},
    ]


def test_every_new_name_exists() -> None:
    tables = renamed.tables()
    settings = {path for path, _ in fields(RunConfig)} | {"stages.<name>.fraction"}
    assert not set(tables["settings"].values()) - settings
    assert not set(tables["settings"]) & settings, "an old name is in use"
    tasks = registry.modules("mmpost.tasks")
    assert set(tables["tasks"].values()) <= set(tasks)
    for name, renames in tables["task_settings"].items():
        if name != "*":
            task = registry.exported(registry.module(name, "mmpost.tasks"), Task)
            assert not set(renames.values()) - {path for path, _ in fields(task)}, name
    for module in {m for text in tables["modules"].values() for m in text.split(", ")}:
        assert importlib.util.find_spec(f"mmpost.{module}"), module


def test_the_page_is_up_to_date() -> None:
    process = subprocess.run(
        [sys.executable, ROOT / "scripts" / "renamed.py", "--check"], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
