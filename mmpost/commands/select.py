"""`mmpost select`: measure a task's samples by the model as it is, and write which of them are worth training on."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mmpost.config import parsing, run_config
from mmpost.core import distributed
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
    """Measure the samples of `task` and write `out=FOLDER/manifest.jsonl`; returns how many there are and are kept.

    The stage that measures is that of a run with `select.by=`: the rollouts and rewards of the task's training. What
    the folder has already is not measured again. A sample that cannot be read is a sample that is never right, unless
    data.on_error=stop is said. Raises ConfigError where the folder holds what another policy, seed or setting measured.
    """
    given: dict[str, Any] = {"data": {"on_error": "skip"}}
    for argument in arguments:
        given = run_config.merge(given, parsing.parse_argument(argument) if isinstance(argument, str) else argument)
    if "by" in given:
        given = run_config.merge(given, {"select": {"by": given.pop("by")}})
    config, outside = run_config.load([given])
    if "out" not in outside:
        raise ConfigError("select writes to a folder: say out=FOLDER")
    select, config = config.select, config.model_copy(update={"select": {}})
    task = ConfiguredTask.load(config)
    stage, _ = measuring_stage(task.stages(), select)
    check_stages([stage])
    session = open_session(config, task)
    policy = checkpoint.weights_hash(session.base)[:16] or session.base
    about = recording.provenance(stage, policy=policy, seed=config.seed, step=0, recipe=session.model.recipe.hash)
    try:
        return _selected(stage, session.context, Path(outside["out"]), about)
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
