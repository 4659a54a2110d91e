"""Which samples of a source to train on: verdicts by uid, as JSON Lines (docs/selection.md).

`mmpost select` and stages that make data write such files; `data.manifest=FILE` reads them, also one made by hand: a
line needs a uid, and is a sample to keep unless its verdict is "drop". The first line may say how the file was made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpost.core import run_files
from mmpost.errors import DataError
from mmpost.selection.recording import Recording
from mmpost.types import SampleRecord, Stage

NAME = "manifest.jsonl"
"""What the file is called in the folder of `mmpost select`."""


@dataclass(frozen=True)
class Manifest:
    """A file of verdicts."""

    file: Path
    records: Sequence[SampleRecord]
    """In the order of the file; the column "kept" is the verdict."""
    made: Mapping[str, Any]
    """How it was made; empty for one made by hand, which need not name the samples that are dropped."""


def read(name: str) -> Manifest:
    """The manifest in a file, or in the folder that `mmpost select` wrote. Raises DataError with file and line."""
    file = Path(name).expanduser()
    file = file / NAME if file.is_dir() else file
    if not file.is_file():
        raise DataError(f"data.manifest={name}: no such file; `mmpost select task=... by=... out=FOLDER` writes one")
    entries, made, uids = [], {}, set()
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found = json.loads(line)
            if number == 1 and "made" in found:
                made = found["made"]
                continue
            uid, verdict = str(found["uid"]), found.get("verdict", "keep")
        except (ValueError, KeyError, TypeError) as e:
            raise DataError(f"{file}:{number}: wanted a JSON object with a uid, found {line[:60]!r}") from e
        if verdict not in ("keep", "drop") or uid in uids:
            wrong = "each uid once" if uid in uids else f"a verdict of keep or drop, found {verdict!r}"
            raise DataError(f"{file}:{number}: wanted {wrong}; uid {uid!r}")
        uids.add(uid)
        columns = {"kept": float(verdict == "keep")}
        entries.append(SampleRecord(uid, int(found.get("index", -1)), columns, str(found.get("lost", ""))))
    return Manifest(file, entries, made)


def write(file: Path, record: Recording, stage: Stage) -> None:
    """The verdicts of a recording; samples with a column "order" in that order, as a curriculum wants them."""
    places = {entry.uid: place for place, entry in enumerate(ordered(record.records))}
    by_uid = {entry.uid: entry for entry in record.records}
    lines = [(places[row["uid"]], _line(by_uid[row["uid"]], row, record.made)) for row in record.rows()]
    made = {**record.made, "conflicts": conflicts(stage)}
    rows = [{"made": made}, *(line for _, line in sorted(lines, key=lambda pair: pair[0]))]
    run_files.write(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def ordered(entries: Sequence[SampleRecord]) -> list[SampleRecord]:
    """By the column "order" where there is one, those without it behind."""
    return sorted(entries, key=lambda e: e.columns.get("order", float("inf")))


def conflicts(stage: Stage) -> dict[str, str]:
    """What samples that were chosen by this stage must not be combined with, by name, and why."""
    found = {}
    for transform in stage.transforms:
        for what, why in transform.conflicts.items():
            found[what if isinstance(what, str) else what.__name__] = f"{type(transform).__name__}: {why}"
    return found


def counts(entries: Sequence[SampleRecord]) -> dict[str, int]:
    """How many samples there are, how many were lost, and of verdicts how many are kept."""
    verdicts = [e.columns["kept"] for e in entries if "kept" in e.columns]
    kept = {"kept": sum(v > 0 for v in verdicts)} if verdicts else {}
    return {"samples": len(entries), "lost": sum(bool(e.drop_reason) for e in entries), **kept}


def format_counts(entries: Sequence[SampleRecord]) -> str:
    """The counts in words."""
    found = counts(entries)
    kept = f", {found['kept']} kept ({found['kept'] / max(1, found['samples']):.1%})" if "kept" in found else ""
    return f"{found['samples']} samples{kept}, {found['lost']} lost"


def _line(entry: SampleRecord, row: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict with what it is made from."""
    replies = [r for r in row.get("replies", ()) if r["origin"] == "policy"]
    scores: dict[str, list[float | None]] = {"reward": [r["columns"].get("reward") for r in replies]}
    for name in dict.fromkeys(name for r in replies for name in r["scores"]):
        scores[name] = [r["scores"].get(name) for r in replies]
    return {
        "uid": entry.uid,
        "index": entry.index,
        "verdict": "keep" if entry.columns.get("kept", 1.0) > 0 and not entry.drop_reason else "drop",
        "k": len(replies),
        "measured": {k: v for k, v in entry.columns.items() if k not in ("kept", "k")},
        "scores": scores if replies else {},
        **({"lost": entry.drop_reason} if entry.drop_reason else {}),
        "policy": made.get("policy", ""),
    }
