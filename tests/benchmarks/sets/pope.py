"""POPE: a few questions in the form of its official files, a right reply to them, and its official script."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, texts


def _rows_of(split: str) -> str:
    rows = [("yes", 1), ("no", 1), ("yes", 2), ("no", 2)]
    questions = [
        {"question_id": i, "image": f"{split}{picture}.jpg", "text": "Is there a dog in the image?", "label": label}
        for i, (label, picture) in enumerate(rows, 1)
    ]
    return "".join(json.dumps(question) + "\n" for question in questions)


FILES = {f"coco_pope_{split}.json": _rows_of(split) for split in ("random", "popular", "adversarial")}
REPOSITORY = "github.com/RUCAIBox/POPE"


def gold(sample: Sample) -> str:
    return str(sample.truth)


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    source = (checkout / "evaluate.py").read_text(encoding="utf-8")
    reading = source[source.index("for answer in answers:") : source.index("for i in range(len(label_list))")]
    for _ in range(REPLIES):
        truth = rng.choice(["yes", "no"])
        row = {"truth": truth, "meta": {}, "reply": texts(truth, ["no", "yes", "a dog"], rng)}
        answers = [{"answer": row["reply"]}]
        exec(compile(reading, "evaluate.py", "exec"), {"answers": answers})
        yield row, float(answers[0]["answer"] == truth)
