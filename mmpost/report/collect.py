"""From a run's folder to what the page needs: names, prompts, token texts and pictures once each, numbers rounded."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpost.core.run_files import groups_of, read_json, read_lines, replies_of

DIGITS = 5
"""Significant digits of numbers on the page."""


class Table:
    """Values by number, each once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[Any, int] = {}

    def place(self, key: Any, value: Any = None) -> int:
        """The number of `key`, whose value is `value` (by default itself)."""
        if key not in self._places:
            self._places[key] = len(self.values)
            self.values.append(key if value is None else value)
        return self._places[key]


def collect(run: Path, most: int) -> dict[str, Any]:
    """Everything about a run as one JSON-serialisable object; at most about `most` replies, of evenly spaced steps."""
    files = replies_of(run)
    steps, replies = _spaced(files, most)
    pages = Replies(run / "samples")
    for step in steps:
        pages.add(step, replies[step])
    summary = read_json(run / "summary.json")
    config = run / "config.yaml"
    return {
        "name": run.resolve().name,
        "summary": _clean(summary),
        "config": config.read_text(encoding="utf-8") if config.exists() else "",
        "metrics": series(read_lines(run / "metrics.jsonl")),
        "left_out": len(files) - len(steps),
        "maps": maps(run),
        **pages.content(),
    }


def series(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Lines of metrics as one list of values per name, null where a line lacks it."""
    names = dict.fromkeys(
        k for line in lines for k, v in line.items() if k not in ("step", "rollout") and not isinstance(v, str)
    )
    return {
        "step": [line["step"] for line in lines],
        "stage": [line.get("stage", "") for line in lines],
        "series": {name: [_clean(line.get(name)) for line in lines] for name in names},
    }


def maps(run: Path) -> list[dict[str, Any]]:
    """Samples that an evaluation gave a place in the plane ("map/x", "map/y"): one map for each file and bench.

    p: x, y, the number of the truth among `names`, the reply.
    """
    found = []
    for path in sorted((run / "eval").glob("*.jsonl")):
        benches: dict[str, list[Any]] = {}
        names = Table()
        for line in read_lines(path):
            x, y = (line["scores"].get(f"map/{axis}") for axis in "xy")
            if x is not None and y is not None:
                truth = line["truth"] if isinstance(line["truth"], str) else json.dumps(line["truth"])
                point = [_clean(x), _clean(y), names.place(truth), line["reply"]]
                benches.setdefault(line["bench"], []).append(point)
        found += [{"when": path.stem, "bench": b, "names": names.values, "points": p} for b, p in benches.items()]
    return found


class Replies:
    """Logged replies of some steps, packed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.groups: list[dict[str, Any]] = []
        self.replies: list[dict[str, Any]] = []
        self.steps: list[int] = []
        self.images: dict[str, str] = {}
        self._prompts, self._pieces, self._origins = Table(), Table(), Table()
        self._scores, self._numbers = Table(), Table()

    def add(self, step: int, lines: list[dict[str, Any]]) -> None:
        """One step's file."""
        self.steps.append(step)
        for group in groups_of(lines):
            first = group[0]
            prompt = [self._part(part) for part in first["prompt"]]
            self.groups.append(
                {
                    "step": step,
                    "uid": first["uid"],
                    "prompt": self._prompts.place(repr(prompt), prompt),
                    "truth": first["truth"],
                    "marks": first.get("truth_marks", []),
                }
            )
            self.replies += [self._reply(line) for line in group]

    def content(self) -> dict[str, Any]:
        """What has been added, for the page."""
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
        """g: group; o: origin; x: text; i: token ids; p: token texts; s, c: scores, numbers; t: per token; m: marks."""
        columns = line["columns"]
        lists = {k: _clean(v) for k, v in columns.items() if isinstance(v, list)}
        packed: dict[str, Any] = {
            "g": len(self.groups) - 1,
            "o": self._origins.place(line["origin"]),
            "x": line["text"],
            "s": _row(self._scores, line["scores"]),
            "c": _row(self._numbers, {k: v for k, v in columns.items() if k not in lists}),
        }
        if line["token_ids"] is not None:
            packed["i"] = line["token_ids"]
        if line.get("pieces") is not None:
            packed["p"] = [self._pieces.place(piece) for piece in line["pieces"]]
        more = {"t": lists, "m": line.get("marks", []), "q": [self._part(part) for part in line["parts"]]}
        return packed | {k: v for k, v in more.items() if v}

    def _part(self, part: Mapping[str, Any]) -> dict[str, Any]:
        if part["kind"] == "text":
            return {"role": part["role"], "kind": "text", "text": part["text"]}
        image = Path(part["media"] or "").name
        path = self.folder / "media" / image
        if image and image not in self.images and path.is_file():
            self.images[image] = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        about = {"name": part.get("name", ""), "sizes": _clean(part.get("sizes", {}))}
        return {"role": part["role"], "kind": part["kind"], "image": image, **about}


def _row(names: Table, values: Mapping[str, Any]) -> list[Any]:
    """Values in the order of `names`, null for those that are missing."""
    row: list[Any] = [None] * len(names.values)
    for name, value in values.items():
        place = names.place(name)
        row += [None] * (place + 1 - len(row))
        row[place] = _clean(value)
    return row


def _clean(value: Any) -> Any:
    """`value` with rounded numbers, and null for those that JSON does not know."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        short = float(f"{value:.{DIGITS}g}")
        return int(short) if short.is_integer() and abs(short) < 1e15 else short
    if isinstance(value, Mapping):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_clean(v) for v in value]
    return value


def _spaced(files: Mapping[int, Path], most: int) -> tuple[list[int], dict[int, list[dict[str, Any]]]]:
    """Steps, as many as there is room for, first and last among them, with their lines."""
    steps = list(files)
    sizes = [_count(path) for path in files.values()]
    n = len(steps)
    while n > 2 and sum(sizes[i] for i in _places(len(steps), n)) > most:
        n -= 1
    chosen = [steps[i] for i in _places(len(steps), n)]
    return chosen, {step: read_lines(files[step]) for step in chosen}


def _places(size: int, n: int) -> list[int]:
    return sorted({round(i * (size - 1) / max(1, n - 1)) for i in range(n)})


def _count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)
