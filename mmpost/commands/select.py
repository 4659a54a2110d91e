"""`mmpost select`: measure a task's samples by the model as it is, and write which of them are worth training on."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from mmpost.config import run_config as config
from mmpost.core import distributed
from mmpost.errors import ConfigError, TrainError
from mmpost.models.opening import open_model
from mmpost.rollout.local import LocalRollout
from mmpost.runs import base_models, checkpoint, prompt_recipe
from mmpost.runs.session import make_task
from mmpost.selection import manifest, recorder, recording
from mmpost.selection.attach import measuring_stage
from mmpost.training.context import TrainingContext
from mmpost.training.interrupts import Interrupted, StopSignal
from mmpost.training.stage_checks import check_stages, checked_stages
from mmpost.types import SampleRecord, Stage

MEASURED = "measured.jsonl"
"""Every reply with its scores, in the folder of the manifest."""


def select(words: Sequence[str | Mapping[str, Any]]) -> dict[str, int]:
    """Measure the samples of `task` and write `out=FOLDER/manifest.jsonl`; returns how many there are and are kept.

    The stage that measures is that of a run with `select.by=`: the rollouts and rewards of the task's training. What
    the folder has already is not measured again. A sample that cannot be read is a sample that is never right, unless
    data.on_error=stop is said. Raises ConfigError where the folder holds what another policy, seed or setting measured.
    """
    given: dict[str, Any] = {"data": {"on_error": "skip"}}
    for word in words:
        given = config.merge(given, config.parse_argument(word) if isinstance(word, str) else word)
    if "by" in given:
        given = config.merge(given, {"select": {"by": given.pop("by")}})
    run_config, aside = config.load([given])
    if "out" not in aside:
        raise ConfigError("select writes to a folder: say out=FOLDER")
    wanted, run_config = run_config.select, run_config.model_copy(update={"select": {}})
    stage, _ = measuring_stage(checked_stages(make_task(run_config)), wanted)
    check_stages([stage])
    if run_config.compute.threads:
        torch.set_num_threads(run_config.compute.threads)
    base = base_models.resolve(run_config.model.name, run_config.seed)
    distributed.start(run_config.model.device)
    model = open_model(base, run_config.model, run_config.compute)
    if distributed.rank() == 0:
        prompt_recipe.warn(base, model.recipe)
    rollout = LocalRollout(model, run_config.compute.rollout_batch_size)
    job = TrainingContext(model, rollout, run_config.seed, skips=run_config.data.on_error == "skip")
    policy = checkpoint.weights_hash(base)[:16] or base
    about = recording.about(stage, policy=policy, seed=run_config.seed, step=0, recipe=model.recipe.hash)
    try:
        return _selected(stage, job, Path(aside["out"]), about)
    finally:
        distributed.stop()


def _selected(stage: Stage, job: TrainingContext, folder: Path, about: Mapping[str, Any]) -> dict[str, int]:
    def other(points: list[str]) -> None:
        raise ConfigError(f"out={folder} holds what was measured otherwise, in {'; '.join(points)}; name a new folder")

    def say(text: str) -> None:
        if distributed.rank() == 0:
            print(text, file=sys.stderr)

    stop, record = StopSignal(), None
    with stop, suppress(Interrupted):
        record = recorder.record_stage(stage, job, folder / MEASURED, about, other, stop, say)
    if record is None:
        raise TrainError(f"stopped; the same command goes on from what {folder / MEASURED} holds")
    if distributed.rank() == 0:
        manifest.write(folder / manifest.NAME, record, stage)
        Console().print(_table(record.records))
        said = f"{manifest.format_counts(record.records)}; train on them with data.manifest={folder / manifest.NAME}"
        Console().print(said, highlight=False, soft_wrap=True)
    return manifest.counts(record.records)


def _table(entries: Sequence[SampleRecord]) -> Table:
    """How many samples have how many right replies, and how many of those are kept."""
    out = Table("right replies", "samples", "kept", title="measured", title_justify="left")
    names = dict.fromkeys(c for e in entries for c in e.columns if c.startswith("right/"))
    for name in names:
        counts = sorted({e.columns[name] for e in entries if name in e.columns})
        for count in counts:
            rows = [e for e in entries if e.columns.get(name) == count]
            kept = sum(e.columns.get("kept", 1.0) > 0 for e in rows)
            out.add_row(f"{name.removeprefix('right/')} {count:g}", str(len(rows)), str(kept))
    return out
