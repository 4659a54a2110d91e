"""A run's folder: its lines of metrics, its files of replies, its summary. No torch here."""

from __future__ import annotations

import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from mmpost.config import registry
from mmpost.errors import ConfigError


def new_folder(out: str | None, name: str) -> Path:
    """The folder of a new run: `out`, which must be empty or not exist, or else runs/<name>/<time>."""
    if out is None:
        return Path("runs") / registry.label(name) / datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"out={out} is not empty; name a new folder, so that no run is overwritten")
    return folder


def find(name: str) -> Path:
    """The run's folder. Raises ConfigError for a folder that no run has written."""
    run = Path(name)
    if not run.is_dir():
        raise ConfigError(f"wanted the folder of a run, found nothing at {run}")
    if not (run / "metrics.jsonl").exists() and not (run / "samples").is_dir():
        raise ConfigError(f"wanted the folder of a run, found no metrics.jsonl and no samples in {run}")
    return run


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file; a last line that a kill cut off is left out, a missing file has none."""
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    return [json.loads(line) for line in lines[:-1] if line]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a .json file; empty where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(path: Path, content: bytes) -> None:
    """Write beside, then rename: a reader or a kill never meets half a file."""
    beside = path.with_name(path.name + ".partial")
    beside.write_bytes(content)
    os.replace(beside, path)


def replies_of(run: Path) -> dict[int, Path]:
    """The files of logged replies by step, in order."""
    found = {}
    for path in sorted((run / "samples").glob("step-*.jsonl")):
        number = re.fullmatch(r"step-(\d+)\.jsonl", path.name)
        if number:
            found[int(number[1])] = path
    return dict(sorted(found.items()))


def read_samples(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of replies. Files of earlier versions call a part's `modality` its `kind`."""
    lines = read_lines(path)
    for line in lines:
        for part in (*line["prompt"], *line["parts"]):
            if "kind" in part:
                part["modality"] = part.pop("kind")
    return lines


def groups_of(lines: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Lines of one file of replies, group by group."""
    found: dict[Any, list[dict[str, Any]]] = {}
    for line in lines:
        found.setdefault(line["group"], []).append(line)
    return list(found.values())
