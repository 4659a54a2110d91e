"""OCRBench: a few questions in the form of its official files, a right reply to them, and its official script."""

from __future__ import annotations

import json
import random
import textwrap
from collections.abc import Iterator
from pathlib import Path

from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, texts

QUESTIONS = [
    {
        "dataset_name": source,
        "id": 7,
        "image_path": f"{source}/7.png",
        "question": "?",
        "answers": answers,
        "type": kind,
    }
    for source, answers, kind in [
        ("IIIT5K", "CENTRE", "Regular Text Recognition"),
        ("docVQA", ["15", "fifteen"], "Doc-oriented VQA"),
        ("HME100k", ["y _ { 2 } = - 1\n"], "Handwritten Mathematical Expression Recognition"),
    ]
]

FILES = {"OCRBench.json": json.dumps(QUESTIONS)}
REPOSITORY = "github.com/Yuliang-Liu/MultimodalOCR"


def gold(sample: Sample) -> str:
    return str(sample.truth[0])


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    source = (checkout / "OCRBench" / "example.py").read_text(encoding="utf-8")
    start = source.index("    for i in range(len(data)):\n        data_type")
    scoring = textwrap.dedent(source[start : source.index("    save_json(data, os.path.join", start)])
    rows = json.loads((checkout / "OCRBench" / "OCRBench" / "OCRBench.json").read_text(encoding="utf-8"))
    formulas = [row for row in rows if row["dataset_name"] == "HME100k"]
    for _ in range(REPLIES):
        row = rng.choice(formulas if rng.random() < 0.2 else rows)
        accepted = row["answers"] if isinstance(row["answers"], list) else [row["answers"]]
        reply = texts(rng.choice(accepted), [rng.choice(rows)["question"], "15"], rng) or " "
        data = [row | {"predict": reply}]
        exec(compile(scoring, "example.py", "exec"), {"data": data})
        meta = {"formula": row["dataset_name"] == "HME100k"}
        yield {"truth": accepted, "meta": meta, "reply": reply}, float(data[0]["result"])
