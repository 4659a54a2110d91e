"""The content of the report page, collected from a run's folder: texts and images are stored once, numbers rounded."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpost.config import parsing
from mmpost.core.run_files import EvalLine, groups_of, read_lines, read_metrics, read_samples, read_summary, replies_of

DIGITS = 5
"""Significant digits of numbers on the page."""


class Table:
    """Distinct values and the index of each; repeated values are stored once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._index: dict[Any, int] = {}

    def index(self, key: Any, value: Any = None) -> int:
        """The index of `key`, which is added with `value` (by default the key itself) if it is new."""
        if key not in self._index:
            self._index[key] = len(self.values)
            self.values.append(key if value is None else value)
        return self._index[key]


def collect(run: Path, max_replies: int) -> dict[str, Any]:
    """The page's content as a JSON-serializable object, with about `max_replies` replies of evenly spaced steps."""
    files = replies_of(run)
    steps = _spaced_steps(files, max_replies)
    replies = Replies(run / "samples")
    for step in steps:
        replies.add(step, read_samples(files[step]))
    summary = read_summary(run)
    config = run / "config.yaml"
    settings = parsing.dump(summary["settings"]) if "settings" in summary else ""
    return {
        "name": run.resolve().name,
        "summary": _clean(summary),
        "evaluations": _clean(_evaluations(summary)),
        "config": config.read_text(encoding="utf-8", errors="backslashreplace") if config.is_file() else settings,
        "metrics": series(read_metrics(run)),
        "left_out": len(files) - len(steps),
        "maps": maps(run),
        **replies.content(),
    }


def _evaluations(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics by heading, and the two headings whose intervals are drawn against each other."""
    evaluations = summary.get("evaluations")
    if evaluations:
        return {"columns": list(evaluations.items()), "drawn": [*evaluations][1::-1]}
    names = {"before": "eval_before", "best on val": "eval_best", "after": "eval_after"}
    columns = [(heading, summary[name]) for heading, name in names.items() if summary.get(name) is not None]
    return {"columns": columns, "drawn": ["before", "after"]}


def series(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The lines of metrics.jsonl as one list of values per metric, None for lines without it."""
    names = dict.fromkeys(
        k for line in lines for k, v in line.items() if k not in ("step", "rollout") and not isinstance(v, str)
    )
    return {
        "step": [line["step"] for line in lines],
        "stage": [line.get("stage", "") for line in lines],
        "series": {name: [_clean(line.get(name)) for line in lines] for name in names},
    }


def maps(run: Path) -> list[dict[str, Any]]:
    """Scatter plots of samples for which an evaluation computed 2-D coordinates, the scores "map/x" and "map/y".

    One for each evaluation and bench. A point is [x, y, index of the truth in `names`, reply].
    """
    result = []
    for path in sorted((run / "eval").glob("*.jsonl")):
        benches: dict[str, list[Any]] = {}
        names = Table()
        for line in read_lines(path, EvalLine):
            x, y = (line["scores"].get(f"map/{axis}") for axis in "xy")
            if x is not None and y is not None:
                truth = line["truth"] if isinstance(line["truth"], str) else json.dumps(line["truth"])
                point = [_clean(x), _clean(y), names.index(truth), line["reply"]]
                benches.setdefault(line["bench"], []).append(point)
        result += [{"when": path.stem, "bench": b, "names": names.values, "points": p} for b, p in benches.items()]
    return result


class Replies:
    """The logged replies of some steps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.groups: list[dict[str, Any]] = []
        self.replies: list[dict[str, Any]] = []
        self.steps: list[int] = []
        self.images: dict[str, str] = {}
        self._prompts, self._pieces, self._origins = Table(), Table(), Table()
        self._scores, self._numbers = Table(), Table()

    def add(self, step: int, lines: list[dict[str, Any]]) -> None:
        """Add the lines of one step's file."""
        self.steps.append(step)
        for group in groups_of(lines):
            first = group[0]
            prompt = [self._part(part) for part in first["prompt"]]
            self.groups.append(
                {
                    "step": step,
                    "uid": first["uid"],
                    "prompt": self._prompts.index(repr(prompt), prompt),
                    "truth": first["truth"],
                    "marks": first.get("truth_marks", []),
                }
            )
            self.replies += [self._reply(line) for line in group]

    def content(self) -> dict[str, Any]:
        """All added lines, in the page's format."""
        return {
            "steps": self.steps,
            "groups": self.groups,
            "replies": self.replies,
            "images": self.images,
            "prompts": self._prompts.values,
            "pieces": self._pieces.values,
            "origins": self._origins.values,
            "scores": self._scores.values,
            "numbers": self._numbers.values,
        }

    def _reply(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Keys: g group, o origin, x text, i token ids, p token strings, s scores, c columns with one value, t columns
        with one value per token, m marks, q media of the reply."""
        columns = line["columns"]
        per_token = {k: _clean(v) for k, v in columns.items() if isinstance(v, list)}
        packed: dict[str, Any] = {
            "g": len(self.groups) - 1,
            "o": self._origins.index(line["origin"]),
            "x": line["text"],
            "s": _row(self._scores, line["scores"]),
            "c": _row(self._numbers, {k: v for k, v in columns.items() if k not in per_token}),
        }
        if line["token_ids"] is not None:
            packed["i"] = line["token_ids"]
        if line.get("pieces") is not None:
            packed["p"] = [self._pieces.index(piece) for piece in line["pieces"]]
        optional = {"t": per_token, "m": line.get("marks", []), "q": [self._part(part) for part in line["parts"]]}
        return packed | {k: v for k, v in optional.items() if v}

    def _part(self, part: Mapping[str, Any]) -> dict[str, Any]:
        if part["modality"] == "text":
            return {"role": part["role"], "modality": "text", "text": part["text"]}
        image = Path(part["media"] or "").name
        path = self.folder / "media" / image
        if image and image not in self.images and path.is_file():
            self.images[image] = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        details = {"name": part.get("name", ""), "sizes": _clean(part.get("sizes", {}))}
        return {"role": part["role"], "modality": part["modality"], "image": image, **details}


def _row(names: Table, values: Mapping[str, Any]) -> list[Any]:
    """`values` in the order of `names`, None for missing ones."""
    row: list[Any] = [None] * len(names.values)
    for name, value in values.items():
        column = names.index(name)
        row += [None] * (column + 1 - len(row))
        row[column] = _clean(value)
    return row


def _clean(value: Any) -> Any:
    """`value` with numbers rounded to DIGITS, and None for non-finite ones."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        rounded = float(f"{value:.{DIGITS}g}")
        return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
    if isinstance(value, Mapping):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_clean(v) for v in value]
    return value


def _spaced_steps(files: Mapping[int, Path], max_replies: int) -> list[int]:
    """Evenly spaced steps including the first and the last, as many as have at most `max_replies` replies in total."""
    steps = list(files)
    sizes = [path.read_bytes().count(b"\n") for path in files.values()]
    n = len(steps)
    while n > 2 and sum(sizes[i] for i in _spaced(len(steps), n)) > max_replies:
        n -= 1
    return [steps[i] for i in _spaced(len(steps), n)]


def _spaced(size: int, n: int) -> list[int]:
    return sorted({round(i * (size - 1) / max(1, n - 1)) for i in range(n)})
