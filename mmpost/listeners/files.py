"""The run folder's own record: metrics.jsonl and samples/."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from mmpost.core.annotations import Mark, marks
from mmpost.core.run_files import read_lines, write
from mmpost.listeners.base import Listener, Metrics
from mmpost.types import CoordinateFrame, Part, Reply, Sample

Pieces = Callable[[Sequence[int]], Sequence[str]]
"""Token ids -> the text of each, so that a report can show tokens without the model's tokenizer."""


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

    def __init__(self, pieces: Pieces | None = None) -> None:
        self._pieces = pieces
        self._folder: Path | None = None

    def on_start(self, run: Path, config: Mapping[str, Any], total_steps: int) -> None:
        self._folder = run / "samples"
        (self._folder / "media").mkdir(parents=True, exist_ok=True)

    def on_samples(self, step: int, samples: Sequence[Sample]) -> None:
        assert self._folder is not None, "on_start comes first"
        folder = self._folder
        lines = [
            json.dumps(line, allow_nan=False, default=str)
            for group, sample in enumerate(samples)
            for line in sample_lines(group, sample, self._pieces, lambda part: _store(folder, part))
        ]
        path = self._folder / f"step-{step:06d}.jsonl"
        write(path, "".join(line + "\n" for line in lines).encode())


class EvalLog(Listener):
    """eval/after.jsonl and the like: one line per scored reply, without media; `mmpost score` reads it again."""

    def on_start(self, run: Path, config: Mapping[str, Any], total_steps: int) -> None:
        self._folder = run / "eval"

    def on_eval(self, name: str, bench: str, samples: Sequence[Sample]) -> None:
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"{name}.jsonl"
        others = [line for line in read_lines(path) if line["bench"] != bench]
        lines = [*others, *(eval_line(bench, sample, reply) for sample in samples for reply in sample.replies)]
        write(path, "".join(json.dumps(line, allow_nan=False, default=str) + "\n" for line in lines).encode())


def eval_line(bench: str, sample: Sample, reply: Reply) -> dict[str, Any]:
    """A scored reply of an evaluation: what its metrics are made of."""
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
    """The samples of each bench again, as far as metrics look at them: uid, truth, meta, replies with their scores."""
    found: dict[str, dict[str, Sample]] = {}
    for line in read_lines(path):
        scores = {name: math.nan if value is None else value for name, value in line["scores"].items()}
        reply = Reply((Part("text", line["reply"], "assistant"),), line["origin"], None, scores, line["columns"])
        of_bench = found.setdefault(line["bench"], {})
        old = of_bench.get(line["uid"])
        frame = None if line["frame"] is None else CoordinateFrame(*line["frame"])
        whole = (*(old.replies if old else ()), reply)
        of_bench[line["uid"]] = Sample(line["uid"], (), whole, line["truth"], line["meta"], frame=frame)
    return {bench: list(samples.values()) for bench, samples in found.items()}


def finite(metrics: Metrics) -> dict[str, float | int | str]:
    """`metrics` as JSON can hold it: numbers that are not finite become names under "nonfinite"."""
    bad = [name for name, value in metrics.items() if isinstance(value, float) and not math.isfinite(value)]
    line = {name: value for name, value in metrics.items() if name not in bad}
    return {**line, "nonfinite": ",".join(bad)} if bad else line


def _reopen(path: Path, step: int) -> TextIO:
    kept = [line for line in read_lines(path) if line["step"] < step]
    write(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
    return path.open("a")


def sample_lines(
    group: int, sample: Sample, pieces: Pieces | None, store: Callable[[Part], str | None]
) -> list[dict[str, Any]]:
    """What the log says of each reply of `sample`; `store` keeps the preview of a medium and tells where it lies.

    A sample without replies has one line, of an empty reply from the data.
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
    return [{**shared, **_reply_line(sample, reply, pieces, store)} for reply in replies]


def _reply_line(
    sample: Sample, reply: Reply, pieces: Pieces | None, store: Callable[[Part], str | None]
) -> dict[str, Any]:
    ids = None if reply.token_ids is None else list(reply.token_ids)
    return {
        "origin": reply.origin,
        "text": reply.text,
        "parts": [_part(part, store) for part in reply.parts if part.modality != "text"],
        "token_ids": ids,
        "pieces": None if ids is None or pieces is None else list(pieces(ids)),
        "scores": {name: _jsonable(value) for name, value in reply.scores.items()},
        "columns": {name: _jsonable(value) for name, value in reply.columns.items()},
        "marks": [_mark(mark) for mark in marks(sample, reply)],
    }


def _part(part: Part, store: Callable[[Part], str | None]) -> dict[str, Any]:
    if part.modality == "text":
        return {"role": part.role, "kind": "text", "text": part.value}
    about = {"name": part.value.name, "sizes": part.value.header()}
    if sketch := part.value.sketch():
        about["sketch"] = sketch
    return {"role": part.role, "kind": part.modality, "media": store(part), **about}


def _mark(mark: Mark) -> list[Any]:
    """[shape, numbers, which medium, label]"""
    return [mark.shape, [round(float(v), 5) for v in mark.at], mark.medium, mark.label]


def _store(folder: Path, part: Part) -> str:
    """Save the medium's preview under its hash, unless it is there; returns its path relative to the samples folder."""
    name = f"media/{part.value.hash}.png"
    if not (folder / name).exists():
        write(folder / name, part.value.preview())
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
