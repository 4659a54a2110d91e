"""Files in a run's folder: metrics, logged replies, summary. Does not import torch."""

from __future__ import annotations

import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from mmpost.config import registry, renamed
from mmpost.errors import ConfigError


def new_folder(out: str | None, name: str) -> Path:
    """The folder of a new run: `out`, or by default runs/<name>/<time>. Raises ConfigError where `out` is not empty."""
    if out is None:
        return Path("runs") / registry.label(name) / datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"out={out} is not empty; choose a new folder, so that no run is overwritten")
    return folder


def find(name: str) -> Path:
    """The folder of an existing run. Raises ConfigError where there is none, or where no run has written to it."""
    run = Path(name)
    if not run.is_dir():
        raise ConfigError(f"wanted the folder of a run, found nothing at {run}")
    if not (run / "metrics.jsonl").exists() and not (run / "samples").is_dir():
        raise ConfigError(f"wanted the folder of a run, found no metrics.jsonl and no samples in {run}")
    return run


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a .jsonl file; none for a missing file. A last line that a kill cut off is ignored."""
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    return [json.loads(line) for line in lines[:-1] if line]


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, under the names of today; none for a missing file."""
    names = renamed.tables()["metrics"]
    return [
        {names.get(name, name): value for name, value in line.items()} for line in read_lines(run / "metrics.jsonl")
    ]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a .json file; empty for a missing file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


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
    lines = read_lines(path)
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
