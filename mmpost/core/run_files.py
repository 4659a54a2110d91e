"""Files in a run's folder: metrics, logged replies, summary. Does not import torch."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock
from pydantic import AliasChoices, BaseModel, Field, ValidationError, model_validator

from mmpost.config import registry, renamed
from mmpost.errors import ConfigError, DataError

BEFORE_FIRST_STEP = {
    *(
        "config.yaml",
        "summary.json",
        "metrics.jsonl",
        "curves.png",
        "eval",
        "samples",
        "tensorboard",
        "wandb",
        "trackio",
    ),
}
"""What the folder of a run without a finished step may hold."""

LEFTOVERS = {f"{name}.partial" for name in BEFORE_FIRST_STEP}
"""What a kill within `write` leaves of them; the next write replaces it."""

LOCK = ".lock"
"""In a folder that a process writes to: the file whose OS lock it holds."""


class PartLine(BaseModel):
    """A part of a prompt or reply, in a file of replies."""

    role: str
    modality: str = Field(validation_alias=AliasChoices("modality", "kind"))
    text: str = ""
    media: str | None = None
    """Path of the medium's preview, relative to the folder of the file."""
    name: str = ""
    sizes: dict[str, float] = {}
    sketch: str = ""


MarkLine = tuple[str, list[float], int, str]
"""Shape, coordinates, index of the medium, label."""


class ReplyLine(BaseModel):
    """A line of samples/step-N.jsonl."""

    uid: str
    group: int
    """Index of the prompt in its batch."""
    prompt: list[PartLine]
    truth: Any
    origin: str
    text: str
    parts: list[PartLine]
    """Media of the reply."""
    token_ids: list[int] | None
    pieces: list[str] | None = None
    """The string of each token."""
    scores: dict[str, float | None]
    columns: dict[str, Any]
    """One value, or one per token."""
    marks: list[MarkLine] = []
    truth_marks: list[MarkLine] = []
    frame: tuple[float, float] | None = None


class EvalLine(BaseModel):
    """A line of eval/NAME.jsonl."""

    bench: str
    uid: str
    reply: str
    origin: str
    scores: dict[str, float | None]
    columns: dict[str, float]
    truth: Any
    meta: dict[str, Any]
    frame: tuple[float, float] | None


class MetricsLine(BaseModel, extra="allow"):
    """A line of metrics.jsonl; all other entries are metrics."""

    __pydantic_extra__: dict[str, float | str | None]
    step: int
    stage: str = ""


class EstimateFile(BaseModel):
    """A metric in summary.json."""

    value: float
    n: float
    low: float
    high: float


class SummaryFile(BaseModel, extra="allow"):
    """summary.json, as far as it is read again."""

    status: str = ""
    reason: str = ""
    steps: int = 0
    eval_before: dict[str, EstimateFile] = {}
    eval_after: dict[str, EstimateFile] = {}
    versions: dict[str, str] = {}


class RolloutReplyState(BaseModel, extra="allow"):
    """A reply of the rollout batch in a checkpoint (`mmpost.core.sample_io.pack`)."""

    parts: list[dict[str, Any]]
    origin: str
    token_ids: list[int] | None
    scores: dict[str, Any]
    columns: dict[str, Any]


class RolloutSampleState(BaseModel, extra="allow"):
    """A sample of the rollout batch in a checkpoint."""

    uid: str
    columns: dict[str, Any]
    replies: list[RolloutReplyState]


class CursorState(BaseModel, strict=True, extra="forbid"):
    """The fields of `mmpost.training.trainer.StageProgress`, without which samples would be drawn again."""

    steps_done: int = Field(ge=0)
    rollout: int = Field(ge=0)
    updates_done: int = Field(ge=0)
    samples_drawn: int = Field(ge=0)
    zero_gradient_steps: int = Field(ge=0)


class StateFile(BaseModel, strict=True, extra="allow"):
    """trainer/state.json of a checkpoint."""

    format: int
    step: int = Field(ge=0)
    stage: str
    """The interrupted one; empty where none was."""
    stages: list[str]
    plan: dict[str, int]
    """Steps of each stage."""
    cursor: CursorState
    buffer: list[list[RolloutSampleState] | None]
    """The rollout batch of each rank."""
    metrics: list[dict[str, list[float]]] | None = None
    """What each rank had logged of a step that was interrupted after its rollout."""
    made: dict[str, str]
    """Digest of the recording of each stage that makes data."""
    world: int
    recipe: str
    base_hash: str
    wall_s: float = Field(ge=0, allow_inf_nan=False)
    results: dict[str, Any]
    best_step: int | None = None

    @model_validator(mode="after")
    def _agree(self) -> StateFile:
        if self.plan.keys() - {*self.stages} or self.stage not in ("", *self.plan):
            raise ValueError("stage, stages and plan name different stages")
        if len(self.metrics or self.buffer) != self.world or len(self.buffer) != self.world:
            raise ValueError(f"buffer or metrics are not of {self.world} ranks")
        return self


def new_folder(out: str | None, name: str) -> Path:
    """The folder for a new run: `out`, or by default runs/<name>/<time>."""
    if out is not None:
        return Path(out)
    return Path("runs") / registry.label(name) / datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Own `folder`, which is created if it does not exist, while the body runs.

    The lock is the operating system's, so a killed process leaves none. Of a torchrun launch only the first rank takes
    it. A folder in which nothing was written is removed again. Raises ConfigError at once where another process owns
    the folder.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = _acquire(folder / LOCK, folder)
    try:
        yield
    finally:
        if not any(path.name != LOCK for path in folder.iterdir()) and created:
            (folder / LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # a parent that something else was written to in the meantime stays
                for path in created:
                    path.rmdir()
        lock.release()


@contextmanager
def locked_file(file: Path) -> Iterator[None]:
    """Like `locked`, for a single file that is written to; its lock is a hidden file beside it."""
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = _acquire(file.with_name(f".{file.name}{LOCK}"), file)
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _acquire(file: Path, owned: Path) -> filelock.BaseFileLock:
    lock = filelock.FileLock(file, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ConfigError(
            f"{owned} is in use: another mmpost process writes to it; wait until it has ended, or choose another `out`"
        ) from None
    return lock


def wait_until_free(folder: Path) -> None:
    """Wait until no process owns `folder`: one whose parent was killed may still finish its step and save."""
    if not (folder / LOCK).exists():
        return
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"mmpost: waiting for another mmpost process, which writes to {folder}", file=sys.stderr)
        lock.acquire()
    lock.release()


def require_unused(folder: Path) -> None:
    """Check that nothing in `folder` would be overwritten by a new run.

    What a run left that failed before its first step is deleted, with a line on stderr. Raises ConfigError for a folder
    with any other content.
    """
    names = {path.name for path in folder.iterdir()} - {LOCK} - LEFTOVERS if folder.exists() else set()
    if not names:
        return
    status = read_summary(folder).get("status")
    if status == "failed" and names <= BEFORE_FIRST_STEP and not read_lines(folder / "metrics.jsonl", MetricsLine):
        print(f"mmpost: {folder} holds a run that failed before its first step; it is replaced", file=sys.stderr)
        for name in sorted(names, key="summary.json".__eq__):  # last, so that a kill meanwhile changes nothing
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return
    raise ConfigError(f"out={folder} is not empty; choose a new folder, so that no run is overwritten")


def find(name: str) -> Path:
    """The folder of an existing run. Raises ConfigError where there is none, or where no run has written to it."""
    run = Path(name)
    if not run.is_dir():
        raise ConfigError(f"wanted the folder of a run, found nothing at {run}")
    if not (run / "metrics.jsonl").exists() and not (run / "samples").is_dir():
        raise ConfigError(f"wanted the folder of a run, found no metrics.jsonl and no samples in {run}")
    return run


def read_lines(path: Path, wanted: type[BaseModel]) -> list[dict[str, Any]]:
    """The objects in a .jsonl file; none for a missing file. A last line that a kill cut off is ignored.

    Raises DataError for a line without the fields of `wanted`.
    """
    objects = []
    for number, line in enumerate(_text(path).split("\n")[:-1], start=1):
        if not line:
            continue
        try:
            objects.append(json.loads(line))
            wanted.model_validate(objects[-1])
        except (ValueError, RecursionError) as e:
            reason = first_reason(e)
            raise DataError(f"{path}:{number} is damaged ({reason}); delete the line, or copy the run again") from e
    return objects


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, under the names of today; none for a missing file."""
    names = renamed.tables()["metrics"]
    return [
        {names.get(name, name): value for name, value in line.items()}
        for line in read_lines(run / "metrics.jsonl", MetricsLine)
    ]


def read_summary(run: Path) -> dict[str, Any]:
    """The content of a run's summary.json; empty for a missing file. Raises DataError for a damaged one."""
    path = run / "summary.json"
    text = _text(path)
    if not path.exists():
        return {}
    try:
        content: dict[str, Any] = json.loads(text)
        SummaryFile.model_validate(content)
    except (ValueError, RecursionError) as e:
        raise DataError(f"{path} is damaged ({first_reason(e)}); delete it, or copy the run again") from e
    return content


def first_reason(error: Exception) -> str:
    """What is wrong with a line or file: of a ValidationError the first field."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    if not first["loc"] and first["type"] != "value_error":
        return f"wanted an object, found {type(first['input']).__name__}"
    return ": ".join([*filter(None, [".".join(map(str, first["loc"]))]), first["msg"]])


def _text(path: Path) -> str:
    """The content of a text file; empty for a missing file. Raises DataError for a folder, a device, and bytes."""
    if not path.exists():
        return ""
    if not path.is_file():
        raise DataError(f"{path}: wanted a file, found a folder or device; delete it, or copy the run again")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path} cannot be read ({e}); delete it, or copy the run again") from e


def write(path: Path, content: bytes) -> None:
    """Write a file atomically: to a temporary name, then renamed, so that no reader or kill ever sees half a file."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def replies_of(run: Path) -> dict[int, Path]:
    """The files of logged replies, by step in ascending order."""
    files = {}
    for path in sorted((run / "samples").glob("step-*.jsonl")):
        number = re.fullmatch(r"step-(\d+)\.jsonl", path.name)
        if number:
            files[int(number[1])] = path
    return dict(sorted(files.items()))


def read_samples(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of replies. Files of earlier versions call a part's `modality` its `kind`."""
    lines = read_lines(path, ReplyLine)
    for line in lines:
        for part in (*line["prompt"], *line["parts"]):
            if "kind" in part:
                part["modality"] = part.pop("kind")
    return lines


def groups_of(lines: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The lines of a file of replies, grouped by their prompt (`group`), in order of first appearance."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault(line["group"], []).append(line)
    return list(groups.values())
