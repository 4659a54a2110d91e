"""Manifests: which samples of a source to train on, as JSON Lines with a verdict per uid (docs/selection.md).

`mmpost select` and data-generation stages with a selector write them; `data.manifest=FILE` reads them. A manifest can
also be written by hand: a line needs a uid, and keeps its sample unless its verdict is "drop". The first line may hold
the provenance of the file.
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
from mmpost.types import SampleRecord, Stage, Transform

NAME = "manifest.jsonl"
"""The file name in the output folder of `mmpost select`."""


@dataclass(frozen=True)
class Manifest:
    """A parsed manifest."""

    file: Path
    records: Sequence[SampleRecord]
    """In the order of the file; the column "kept" (1 or 0) is the verdict."""
    provenance: Mapping[str, Any]
    """The first line that `write` wrote; empty for a manifest written by hand, which need not list the samples that it
    drops."""


def read(name: str) -> Manifest:
    """Read a manifest file, or the one in an output folder of `mmpost select`.

    Raises DataError, with file and line, for a line that is not a JSON object with a uid, an unknown verdict or a
    repeated uid.
    """
    file = Path(name).expanduser()
    file = file / NAME if file.is_dir() else file
    if not file.is_file():
        raise DataError(f"data.manifest={name}: no such file; `mmpost select task=... by=... out=FOLDER` writes one")
    records, provenance, uids = [], {}, set()
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
            if number == 1 and "made" in row:
                provenance = row["made"]
                continue
            uid, verdict = str(row["uid"]), row.get("verdict", "keep")
        except (ValueError, KeyError, TypeError) as e:
            found = line[:60].decode(errors="backslashreplace")
            raise DataError(f"{file}:{number}: wanted a JSON object with a uid, found {found!r}") from e
        if verdict not in ("keep", "drop") or uid in uids:
            problem = "each uid once" if uid in uids else f"a verdict of keep or drop, found {verdict!r}"
            raise DataError(f"{file}:{number}: wanted {problem}; uid {uid!r}")
        uids.add(uid)
        columns = {"kept": float(verdict == "keep")}
        records.append(SampleRecord(uid, int(row.get("index", -1)), columns, str(row.get("lost", ""))))
    return Manifest(file, records, provenance)


def write(file: Path, recording: Recording, stage: Stage) -> None:
    """Write the manifest of a stage's recording, its samples sorted by the column "order" (see `ordered`)."""
    rank = {record.uid: i for i, record in enumerate(ordered(recording.records))}
    by_uid = {record.uid: record for record in recording.records}
    lines = [(rank[row["uid"]], _line(by_uid[row["uid"]], row, recording.provenance)) for row in recording.rows()]
    made = {**recording.provenance, "conflicts": conflicts(stage)}
    rows = [{"made": made}, *(line for _, line in sorted(lines, key=lambda pair: pair[0]))]
    run_files.write(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def ordered(records: Sequence[SampleRecord]) -> list[SampleRecord]:
    """`records` sorted by their column "order" (a curriculum), those without it last; the sort is stable."""
    return sorted(records, key=lambda record: record.columns.get("order", float("inf")))


def conflicts(stage: Stage) -> dict[str, str]:
    """Conflicts of training on the samples selected by `stage`, with reasons.

    Maps names of columns or transforms to "SELECTOR: reason"; see `refuse_selection_conflicts`.
    """
    reasons = {}
    for transform in (t for t in stage.transforms if isinstance(t, Transform)):
        for conflict, reason in transform.conflicts.items():
            name = conflict if isinstance(conflict, str) else conflict.__name__
            reasons[name] = f"{type(transform).__name__}: {reason}"
    return reasons


def counts(records: Sequence[SampleRecord]) -> dict[str, int]:
    """The number of "samples", of those "lost" (unreadable, or dropped by a transform) and, given verdicts, "kept"."""
    verdicts = [record.columns["kept"] for record in records if "kept" in record.columns]
    kept = {"kept": sum(v > 0 for v in verdicts)} if verdicts else {}
    return {"samples": len(records), "lost": sum(bool(record.drop_reason) for record in records), **kept}


def format_counts(records: Sequence[SampleRecord]) -> str:
    """`counts` as text, such as "10 samples, 6 kept (60.0%), 1 unusable"."""
    n = counts(records)
    kept = f", {n['kept']} kept ({n['kept'] / max(1, n['samples']):.1%})" if "kept" in n else ""
    return f"{n['samples']} samples{kept}, {n['lost']} unusable"


def _line(record: SampleRecord, row: Mapping[str, Any], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict on a sample, with the measurements and scores that it is based on."""
    replies = [r for r in row.get("replies", ()) if r["origin"] == "policy"]
    scores: dict[str, list[float | None]] = {"reward": [r["columns"].get("reward") for r in replies]}
    for name in dict.fromkeys(name for r in replies for name in r["scores"]):
        scores[name] = [r["scores"].get(name) for r in replies]
    return {
        "uid": record.uid,
        "index": record.index,
        "verdict": "keep" if record.columns.get("kept", 1.0) > 0 and not record.drop_reason else "drop",
        "k": len(replies),
        "measured": {k: v for k, v in record.columns.items() if k not in ("kept", "k")},
        "scores": scores if replies else {},
        **({"lost": record.drop_reason} if record.drop_reason else {}),
        "policy": provenance.get("policy", ""),
    }
