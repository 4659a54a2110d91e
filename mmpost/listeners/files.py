"""Logs in the run's folder: metrics.jsonl, samples/ and eval/."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from mmpost.core.annotations import Mark, marks
from mmpost.core.run_files import EvalLine, MetricsLine, read_lines, write
from mmpost.listeners.base import Listener, Metrics
from mmpost.types import CoordinateFrame, Part, Reply, Sample

TokenStrings = Callable[[Sequence[int]], Sequence[str]]
"""Token ids -> the text of each token, so that a report can show tokens without the model's tokenizer."""


class JsonlMetrics(Listener):
    """metrics.jsonl: one JSON object per line, on disk before the next step begins.

    JSON has no NaN: non-finite numbers are left out and their names listed under the line's "nonfinite". After a
    resume, the lines of repeated steps are dropped, as is an incomplete last line of a killed run.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file: TextIO | None = None

    def on_start(self, run: Path, config: Mapping[str, Any], total_steps: int) -> None:
        self.on_end({})
        self._path = run / "metrics.jsonl"

    def on_metrics(self, metrics: Metrics) -> None:
        assert self._path is not None, "on_start was not called"
        if self._file is None:
            earlier = [line for line in read_lines(self._path, MetricsLine) if line["step"] < int(metrics["step"])]
            write(self._path, "".join(json.dumps(line) + "\n" for line in earlier).encode())
            self._file = self._path.open("a")
        self._file.write(json.dumps(finite(metrics), allow_nan=False) + "\n")
        self._file.flush()

    def on_end(self, summary: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


class SamplesLog(Listener):
    """samples/step-000012.jsonl: one line per reply; previews of media in samples/media/<hash>.png."""

    def __init__(self, token_strings: TokenStrings | None = None) -> None:
        self._token_strings = token_strings
        self._folder: Path | None = None

    def on_start(self, run: Path, config: Mapping[str, Any], total_steps: int) -> None:
        self._folder = run / "samples"
        (self._folder / "media").mkdir(parents=True, exist_ok=True)

    def on_samples(self, step: int, samples: Sequence[Sample]) -> None:
        assert self._folder is not None, "on_start was not called"
        folder = self._folder
        lines = [
            json.dumps(line, allow_nan=False, default=str)
            for group, sample in enumerate(samples)
            for line in sample_lines(group, sample, self._token_strings, lambda part: _store(folder, part))
        ]
        path = self._folder / f"step-{step:06d}.jsonl"
        write(path, "".join(line + "\n" for line in lines).encode())


class EvalLog(Listener):
    """eval/before.jsonl, eval/after.jsonl, ...: one line per scored reply, without media; `mmpost score` reads them."""

    def on_start(self, run: Path, config: Mapping[str, Any], total_steps: int) -> None:
        self._folder = run / "eval"

    def on_eval(self, name: str, bench: str, samples: Sequence[Sample]) -> None:
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"{name}.jsonl"
        others = [line for line in read_lines(path, EvalLine) if line["bench"] != bench]
        lines = [*others, *(eval_line(bench, sample, reply) for sample in samples for reply in sample.replies)]
        write(path, "".join(json.dumps(line, allow_nan=False, default=str) + "\n" for line in lines).encode())


def eval_line(bench: str, sample: Sample, reply: Reply) -> dict[str, Any]:
    """A scored reply of an evaluation, with everything that its metrics are computed from."""
    return {
        "bench": bench,
        "uid": sample.uid,
        "reply": reply.text,
        "origin": reply.origin,
        "scores": {name: _jsonable(value) for name, value in reply.scores.items()},
        "columns": {name: value for name, value in reply.columns.items() if isinstance(value, int | float)},
        "truth": _jsonable(sample.truth),
        "meta": _jsonable(sample.meta),
        "frame": None if sample.frame is None else [sample.frame.width, sample.frame.height],
    }


def eval_samples(path: Path) -> dict[str, list[Sample]]:
    """The samples of each bench as metrics need them: uid, truth, meta, and replies with their scores."""
    benches: dict[str, dict[str, Sample]] = {}
    for line in read_lines(path, EvalLine):
        scores = {name: math.nan if value is None else value for name, value in line["scores"].items()}
        reply = Reply((Part("text", line["reply"], "assistant"),), line["origin"], None, scores, line["columns"])
        samples = benches.setdefault(line["bench"], {})
        sample = samples.get(line["uid"])
        frame = None if line["frame"] is None else CoordinateFrame(*line["frame"])
        replies = (*(sample.replies if sample else ()), reply)
        samples[line["uid"]] = Sample(line["uid"], (), replies, line["truth"], line["meta"], frame=frame)
    return {bench: list(samples.values()) for bench, samples in benches.items()}


def finite(metrics: Metrics) -> dict[str, float | int | str]:
    """`metrics` without non-finite numbers, whose names are listed under "nonfinite"."""
    nonfinite = [name for name, value in metrics.items() if isinstance(value, float) and not math.isfinite(value)]
    line = {name: value for name, value in metrics.items() if name not in nonfinite}
    return {**line, "nonfinite": ",".join(nonfinite)} if nonfinite else line


def sample_lines(
    group: int, sample: Sample, token_strings: TokenStrings | None, store: Callable[[Part], str | None]
) -> list[dict[str, Any]]:
    """The log line of each reply of `sample`, the `group`-th of its batch. A sample without replies gets one line, with
    an empty reply.

    `store` saves the preview of a medium and returns its path (None: not saved).
    """
    shared = {
        "uid": sample.uid,
        "group": group,
        "prompt": [_part(part, store) for part in sample.prompt],
        "sample_columns": {name: _jsonable(value) for name, value in sample.columns.items()},
        "truth": _jsonable(sample.truth),
        "truth_marks": [_mark(mark) for mark in marks(sample, None)],
        "frame": None if sample.frame is None else [sample.frame.width, sample.frame.height],
    }
    replies = sample.replies or (Reply((), "data"),)
    return [{**shared, **_reply_line(sample, reply, token_strings, store)} for reply in replies]


def _reply_line(
    sample: Sample, reply: Reply, token_strings: TokenStrings | None, store: Callable[[Part], str | None]
) -> dict[str, Any]:
    ids = None if reply.token_ids is None else list(reply.token_ids)
    return {
        "origin": reply.origin,
        "text": reply.text,
        "parts": [_part(part, store) for part in reply.parts if part.modality != "text"],
        "token_ids": ids,
        "pieces": None if ids is None or token_strings is None else list(token_strings(ids)),
        "scores": {name: _jsonable(value) for name, value in reply.scores.items()},
        "columns": {name: _jsonable(value) for name, value in reply.columns.items()},
        "marks": [_mark(mark) for mark in marks(sample, reply)],
    }


def _part(part: Part, store: Callable[[Part], str | None]) -> dict[str, Any]:
    if part.modality == "text":
        return {"role": part.role, "modality": "text", "text": part.value}
    details = {"name": part.value.name, "sizes": part.value.header()}
    if sketch := part.value.sketch():
        details["sketch"] = sketch
    return {"role": part.role, "modality": part.modality, "media": store(part), **details}


def _mark(mark: Mark) -> list[Any]:
    """[shape, coordinates, index of the medium, label]"""
    return [mark.shape, [round(float(v), 5) for v in mark.at], mark.medium, mark.label]


def _store(folder: Path, part: Part) -> str:
    """Save the medium's preview under its hash, once. Returns its path relative to the samples folder."""
    name = f"media/{part.value.hash}.png"
    if not (folder / name).exists():
        write(folder / name, part.value.preview())
    return name


def _jsonable(value: Any) -> Any:
    """`value` with tensors and arrays as lists, and None for non-finite numbers."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return value
