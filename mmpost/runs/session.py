"""Where all parts meet: words become a configuration, a task, a model, and then a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from mmpost.config import registry, run_config as config
from mmpost.config.run_config import RunConfig
from mmpost.core import distributed
from mmpost.errors import ConfigError
from mmpost.methods.user_rewards import with_rewards
from mmpost.models.opening import open_model
from mmpost.runs import base_models, checkpoint, prompt_recipe
from mmpost.runs.run import Run
from mmpost.selection.attach import attach_selection
from mmpost.training.evaluation import run_benches, table
from mmpost.types import Model, Task


def train(words: Sequence[str | Mapping[str, Any]]) -> dict[str, Any]:
    """Train as configured, or go on with a run (`resume`); returns what summary.json holds."""
    run_config, aside = config.load(words)
    if run_config.compute.threads:
        torch.set_num_threads(run_config.compute.threads)
    if "resume" in aside:
        folder, snapshot = resumable(aside["resume"])
    else:
        folder, snapshot = new_folder(aside.get("out"), run_config.task["name"]), None
    return Run(run_config, make_task(run_config), folder, snapshot, evaluated_tasks(run_config)).train()


def evaluate(words: Sequence[str | Mapping[str, Any]]) -> dict[str, Any]:
    """Evaluate `model` on the task's test split: prints a table, writes eval.json, returns its content.

    eval.json goes into `out`; without one into the run folder that `model` names, else into a new one.
    """
    run_config, aside = config.load(words)
    named = Path(run_config.model.name)
    if "out" not in aside and (named / "checkpoints").is_dir():
        folder = named
    else:
        folder = new_folder(aside.get("out"), f"eval-{registry.label(run_config.task['name'])}")
    run = Run(run_config, make_task(run_config), folder, evaluated=evaluated_tasks(run_config))
    scores = run_benches(run.job, run.benches("test"), run_config.eval.max_samples)
    result = {"model": str(named), "task": run_config.task, "scores": scores}
    if distributed.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "eval.json").write_text(json.dumps(result, indent=1))
        Console().print(table(f"{run_config.task['name']}, test split, {named}", {"": scores}))
        Console().print(f"written to {folder / 'eval.json'}", highlight=False, soft_wrap=True)
    distributed.stop()
    return result


def load(name: str, **settings: Any) -> Model:
    """The model that `model=name` means on the command line, with the fields of the `model` section as arguments."""
    run_config = config.decode(config.ModelSettings, {"name": name, **settings}, "model.")
    folder = base_models.resolve(name, 0)
    model = open_model(folder, run_config)
    prompt_recipe.warn(folder, model.recipe)
    return model


def make_task(run_config: RunConfig) -> Task:
    """The task that a configuration names, with its fields decoded."""
    kind = registry.exported(registry.module(run_config.task["name"], "mmpost.tasks"), Task)
    fields = {k: v for k, v in run_config.task.items() if k != "name"}
    if "data" in fields:
        raise ConfigError("unknown key task.data; the data section is at the top: data.train, data.test, ...")
    if run_config.rewards:
        kind = with_rewards(kind, run_config.rewards)
    kind = attach_selection(kind, run_config.select, run_config.data, run_config.seed)
    return config.decode(kind, {**fields, "data": run_config.data}, "task.")


def evaluated_tasks(run_config: RunConfig) -> dict[str, Task]:
    """The tasks of `eval.tasks`, each with what configs/ says of it for the run's model."""
    found = {}
    for name, one in run_config.eval.tasks.items():
        own = {"task": one.task, "data": one.data.model_dump(exclude_unset=True), "rewards": one.rewards}
        found[name] = make_task(config.load([{**own, "model": run_config.model.name}])[0])
    return found


def new_folder(out: str | None, name: str) -> Path:
    """The run's folder: `out`, which must be new or empty, else runs/<name>/<time>. Every rank gets the same."""
    folder = (
        Path(out) if out else Path("runs") / registry.label(name) / datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
    )
    if out and folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"out={out} is not empty; name a new folder, so that no run is overwritten")
    return folder


def resumable(name: str) -> tuple[Path, Path | None]:
    """The folder of a run and the checkpoint to go on from: the newest, or the one named; none: from the start."""
    path = Path(name)
    if path.parent.name == "checkpoints":
        return path.parent.parent, checkpoint.newest(path.parent) if path.name == "last" else path.resolve()
    return path, checkpoint.newest(path / "checkpoints")
