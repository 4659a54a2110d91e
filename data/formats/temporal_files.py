"""Official annotation files of temporal grounding and grounded QA, as rows in the form that `temporal.py` reads.

| file | companion files in the same folder |
|---|---|
| Charades-STA: .txt of `VIDEO START END##SENTENCE` | durations: Charades_v1_*.csv (`id`, `length`) or durations.json |
| ActivityNet Captions: .json {video: {duration, timestamps, sentences}} | |
| NExT-GQA: .csv (video_id, qid, question, answer, a0 to a4) | gsub_*.json of the same split, map_vid_vidorID.json |

Spans are in seconds. Missing durations are read from the videos.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpost.data.readers.rows import QUESTION_KEYS, TURN_KEYS
from mmpost.data.readers.tables import Opener
from mmpost.errors import DataError

_LINE = re.compile(r"\s*(\S+)\s+(-?[\d.]+)\s+(-?[\d.]+)\s*##\s*(.*\S)\s*")


def charades(path: Path) -> list[dict[str, Any]]:
    """Read the lines of Charades-STA. Raises DataError with the line number for a malformed line."""
    durations = _durations(path.parent)
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        parts = _LINE.fullmatch(line)
        if parts is None:
            raise DataError(
                f"{path.name}:{number}: wanted VIDEO START END##SENTENCE, found {line!r:.100}. Correct the line."
            )
        video, start, end, sentence = parts.groups()
        row = _row(f"{video}#{number}", "charades_sta", video, sentence, durations.get(video))
        rows.append({**row, "solution": {"spans": [[_number(start, path, number), _number(end, path, number)]]}})
    return rows


def activitynet(path: Path) -> list[dict[str, Any]] | None:
    """Read ActivityNet Captions, one row per sentence; None for a list, which holds rows.

    Raises DataError with the video for a malformed entry.
    """
    with path.open("rb") as file:
        if file.read(1024).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"["):
            return None
    videos, name = json.loads(path.read_text(encoding="utf-8-sig")), path.name
    rows = []
    for video, entry in videos.items():
        known = isinstance(entry, Mapping) and {"duration", "timestamps", "sentences"} <= entry.keys()
        if not known or len(entry["timestamps"]) != len(entry["sentences"]):
            raise DataError(
                f"{name}: wanted a JSON list of rows, or by video its duration, and as many timestamps as sentences "
                f"(ActivityNet Captions); found {entry!r:.100} for {video!r}."
            )
        pairs = zip(entry["timestamps"], entry["sentences"], strict=True)
        for number, (span, sentence) in enumerate(pairs):
            row = _row(f"{video}#{number}", "activitynet_captions", video, sentence.strip(), entry["duration"])
            rows.append({**row, "solution": {"spans": [span]}})
    return rows


def nextgqa(path: Path) -> list[dict[str, Any]] | None:
    """Read NExT-GQA questions with their spans; without a gsub file, plain multiple choice (NExT-QA).

    None for a table of rows with a question and a solution.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns, questions = reader.fieldnames or (), list(reader)
    if not {"question", "answer", "qid", "a0", "a1"} <= set(columns):
        if "solution" in columns and {*TURN_KEYS, *QUESTION_KEYS} & set(columns):
            return None
        raise DataError(
            f"{path.name}: wanted a CSV of NExT-GQA (video_id, qid, question, answer, a0 to a4), found the columns "
            f"{', '.join(columns) or 'none'}. Other rows need `video`, `problem` and `solution`."
        )
    grounding, videos = _companion(path, f"gsub_{path.stem}.json"), _companion(path, "map_vid_vidorID.json")
    rows = []
    for number, row in enumerate(questions, 2):
        video = row.get("video_id") or row.get("video") or ""
        options = [row[f"a{i}"] for i in range(5) if row.get(f"a{i}")]
        annotation = grounding.get(video, {})
        spans = annotation.get("location", {}).get(row["qid"], [])
        solution = {"answer": _letter(row["answer"], options, f"{path.name}:{number}"), "spans": spans}
        name = f"{video}_{row['qid']}"
        base = _row(name, "nextgqa", videos.get(video, video), row["question"].strip(), annotation.get("duration"))
        rows.append({**base, "solution": solution, "options": options, "type": row.get("type")})
    return rows


def _row(uid: str, dataset: str, video: str, question: str, duration: float | None) -> dict[str, Any]:
    return {"id": uid, "dataset": dataset, "video": video, "problem": question, "video_length": duration}


def _letter(answer: str, options: list[str], where: str) -> str:
    """The letter of the correct option, which the file gives as text (NExT-GQA) or index (NExT-QA)."""
    index = options.index(answer) if answer in options else int(answer) if answer.isdigit() else -1
    if not 0 <= index < len(options):
        raise DataError(f"{where}: wanted an answer among the options {options}, found {answer!r}. Correct the row.")
    return chr(ord("A") + index)


def _number(text: str, path: Path, line: int) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DataError(f"{path.name}:{line}: wanted seconds, found {text!r}. Correct the line.") from error


def _durations(folder: Path) -> dict[str, float]:
    """Durations in seconds by video, from the files next to an annotation file."""
    durations: dict[str, float] = {}
    for file in sorted(folder.glob("Charades_v1_*.csv")):
        with file.open(encoding="utf-8", newline="") as lines:
            durations |= {r["id"]: float(r["length"]) for r in csv.DictReader(lines) if r.get("id") and r.get("length")}
    listed = folder / "durations.json"
    return durations | (json.loads(listed.read_text()) if listed.exists() else {})


def _companion(path: Path, name: str) -> dict[str, Any]:
    file = path.with_name(name)
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


OPENERS: Mapping[str, Opener] = {".txt": charades, ".csv": nextgqa, ".json": activitynet}
"""Readers of the released files, by suffix."""
