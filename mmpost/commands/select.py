"""`mmpost select`: measures samples with the current policy and writes a manifest of those worth training on."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mmpost.config import run_config
from mmpost.config.run_config import RunConfig
from mmpost.core import distributed
from mmpost.core.run_files import locked
from mmpost.errors import ConfigError, TrainError
from mmpost.runs import checkpoint
from mmpost.runs.configured_task import ConfiguredTask
from mmpost.runs.session import open_session
from mmpost.selection import manifest, recorder, recording
from mmpost.selection.attach import measuring_stage
from mmpost.training.context import TrainingContext
from mmpost.training.stage_checks import check_stages
from mmpost.training.trainer import Interrupted, StopSignal
from mmpost.types import SampleRecord, Stage

MEASURED = "measured.jsonl"
"""Every reply with its scores, in the folder of the manifest."""


def main(arguments: Sequence[str]) -> int:
    """`mmpost select`."""
    select(arguments)
    return 0


def select(arguments: Sequence[str | Mapping[str, Any]]) -> dict[str, int]:
    """Measure the samples of `task` and write `out=FOLDER/manifest.jsonl`; returns `manifest.counts`.

    Uses the measuring stage of a run with `select.by=`: the rollouts and rewards of the task's training. Resumes the
    measurements in the folder. An unreadable sample counts as never correct, unless data.on_error=stop. Raises
    ConfigError if the measurements in the folder are of another policy, seed or configuration.
    """
    overrides = run_config.merged([{"data": {"on_error": "skip"}}, *arguments])
    if "by" in overrides:
        overrides = run_config.merge(overrides, {"select": {"by": overrides.pop("by")}})
    config, paths = run_config.load([overrides])
    if "out" not in paths:
        raise ConfigError("wanted an output folder, found none; add out=FOLDER")
    select, config = config.select, config.model_copy(update={"select": {}})
    task = ConfiguredTask.load(config)
    stage, _ = measuring_stage(task.stages(), select)
    if stage.reads_from is not None:
        raise ConfigError(
            f"task={config.task['name']} trains on what its stage {stage.reads_from.stage!r} generates, which only a "
            "run does; select in it: mmpost train with select.by=..."
        )
    check_stages([stage])
    folder = Path(paths["out"])
    with locked(folder):
        return _select(config, task, stage, folder)


def _select(config: RunConfig, task: ConfiguredTask, stage: Stage, folder: Path) -> dict[str, int]:
    session = open_session(config, task)
    policy = checkpoint.weights_hash(session.base)[:16] or session.base
    provenance = recording.provenance(stage, policy=policy, seed=config.seed, step=0, recipe=session.model.recipe.hash)
    try:
        return _measure(stage, session.context, folder, provenance)
    finally:
        distributed.stop()


def _measure(stage: Stage, context: TrainingContext, folder: Path, provenance: Mapping[str, Any]) -> dict[str, int]:
    def refuse(differences: list[str]) -> None:
        raise ConfigError(
            f"out={folder} contains measurements that differ in {'; '.join(differences)}; choose a new folder"
        )

    def log(text: str) -> None:
        if distributed.rank() == 0:
            print(text, file=sys.stderr)

    stop, record = StopSignal(), None
    with stop, suppress(Interrupted):
        record = recorder.record_stage(stage, context, folder / MEASURED, provenance, refuse, stop, log)
    if record is None:
        raise TrainError(f"stopped by a signal; run the same command again to resume from {folder / MEASURED}")
    if distributed.rank() == 0:
        manifest.write(folder / manifest.NAME, record, stage)
        Console().print(_table(record.records))
        message = f"{manifest.format_counts(record.records)}; train with data.manifest={folder / manifest.NAME}"
        Console().print(message, highlight=False, soft_wrap=True)
    return manifest.counts(record.records)


def _table(records: Sequence[SampleRecord]) -> Table:
    """For each score and number of correct replies, the number of samples, and of kept ones."""
    table = Table("correct replies", "samples", "kept", title="measurements", title_justify="left")
    names = dict.fromkeys(c for r in records for c in r.columns if c.startswith("right/"))
    for name in names:
        counts = sorted({r.columns[name] for r in records if name in r.columns})
        for count in counts:
            rows = [r for r in records if r.columns.get(name) == count]
            kept = sum(r.columns.get("kept", 1.0) > 0 for r in rows)
            table.add_row(f"{name.removeprefix('right/')} {count:g}", str(len(rows)), str(kept))
    return table
