"""The run folder's own record: metrics.jsonl and samples/."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from mmpost.listeners.base import Listener, Metrics
from mmpost.types import Part, Reply, Sample


class JsonlMetrics(Listener):
    """metrics.jsonl: one JSON object a line, on disk before the next step begins.

    JSON has no NaN: a number that is not finite is left out, and its name goes to the line's "nonfinite". After a
    resume, lines of steps that are done again are dropped, as is a last line that a kill cut off.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file: TextIO | None = None

    def on_start(self, run: Path, config: Mapping[str, Any], total_steps: int) -> None:
        self.on_end({})
        self._path = run / "metrics.jsonl"

    def on_metrics(self, metrics: Metrics) -> None:
        assert self._path is not None, "on_start comes first"
        if self._file is None:
            self._file = _reopen(self._path, int(metrics["step"]))
        self._file.write(json.dumps(finite(metrics), allow_nan=False) + "\n")
        self._file.flush()

    def on_end(self, summary: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


class SamplesLog(Listener):
    """samples/step-000012.jsonl: one line per reply; the preview of each medium once, as samples/media/<hash>.png."""

    def __init__(self) -> None:
        self._folder: Path | None = None

    def on_start(self, run: Path, config: Mapping[str, Any], total_steps: int) -> None:
        self._folder = run / "samples"
        (self._folder / "media").mkdir(parents=True, exist_ok=True)

    def on_samples(self, step: int, samples: Sequence[Sample]) -> None:
        assert self._folder is not None, "on_start comes first"
        lines = [
            json.dumps(_reply_line(self._folder, group, sample, reply), allow_nan=False, default=str)
            for group, sample in enumerate(samples)
            for reply in sample.replies
        ]
        path = self._folder / f"step-{step:06d}.jsonl"
        _replace(path, "".join(line + "\n" for line in lines).encode())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line that a kill cut off is left out."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def finite(metrics: Metrics) -> dict[str, float | int | str]:
    """`metrics` as JSON can hold it: numbers that are not finite become names under "nonfinite"."""
    bad = [name for name, value in metrics.items() if isinstance(value, float) and not math.isfinite(value)]
    line = {name: value for name, value in metrics.items() if name not in bad}
    return {**line, "nonfinite": ",".join(bad)} if bad else line


def _reopen(path: Path, step: int) -> TextIO:
    kept = [line for line in read_metrics(path) if line["step"] < step]
    _replace(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
    return path.open("a")


def _replace(path: Path, content: bytes) -> None:
    """Write beside, then rename: a reader or a kill never meets half a file."""
    beside = path.with_name(path.name + ".partial")
    beside.write_bytes(content)
    os.replace(beside, path)


def _reply_line(folder: Path, group: int, sample: Sample, reply: Reply) -> dict[str, Any]:
    return {
        "uid": sample.uid,
        "group": group,
        "origin": reply.origin,
        "prompt": [_part(folder, part) for part in sample.prompt],
        "text": reply.text,
        "parts": [_part(folder, part) for part in reply.parts if part.kind != "text"],
        "token_ids": None if reply.token_ids is None else list(reply.token_ids),
        "scores": {name: _jsonable(value) for name, value in reply.scores.items()},
        "columns": {name: _jsonable(value) for name, value in reply.columns.items()},
        "sample_columns": {name: _jsonable(value) for name, value in sample.columns.items()},
        "truth": _jsonable(sample.truth),
        "frame": None if sample.frame is None else [sample.frame.width, sample.frame.height],
    }


def _part(folder: Path, part: Part) -> dict[str, Any]:
    if part.kind == "text":
        return {"role": part.role, "kind": "text", "text": part.value}
    return {"role": part.role, "kind": part.kind, "media": _store(folder, part), "name": part.value.name}


def _store(folder: Path, part: Part) -> str:
    """Save the medium's preview under its hash, unless it is there; returns its path relative to the samples folder."""
    name = f"media/{part.value.hash}.png"
    if not (folder / name).exists():
        _replace(folder / name, part.value.preview())
    return name


def _jsonable(value: Any) -> Any:
    """`value` with tensors and arrays as lists, and null for a number that is not finite."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return value
