"""MathVista: a few questions in the form of its official files, a right reply to them, and its official script."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, functions, texts

QUESTIONS = {
    str(pid): {
        "question": "How many?",
        "image": f"images/{pid}.jpg",
        "choices": choices,
        "unit": None,
        "precision": precision,
        "answer": answer,
        "question_type": "free_form" if choices is None else "multi_choice",
        "answer_type": kind,
        "pid": str(pid),
        "metadata": {"task": "math word problem", "skills": ["arithmetic reasoning"]},
    }
    for pid, (answer, kind, precision, choices) in enumerate(
        [
            ("145°", "text", None, ["135°", "145°"]),
            ("14", "integer", None, None),
            ("1.2", "float", 1, None),
            ("[2014, 2016]", "list", None, None),
        ],
        1,
    )
}

FILES = {"testmini.json": json.dumps(QUESTIONS)}
REPOSITORY = "github.com/lupantech/MathVista"


def gold(sample: Sample) -> str:
    return str(sample.truth)


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    from rapidfuzz.distance import Levenshtein

    evaluation = checkout / "evaluation"
    names = ["get_most_similar", "normalize_extracted_answer"]
    _, normalize = functions(evaluation / "calculate_score.py", names, re=re, distance=Levenshtein.distance)
    questions = list(json.loads((checkout / "data" / "testmini.json").read_text(encoding="utf-8")).values())
    for _ in range(REPLIES):
        q = rng.choice(questions)
        reply = texts(q["answer"], q["choices"] or [str(rng.randrange(99)), f"{rng.uniform(0, 9):.2f}"], rng)
        answer = normalize(reply, q["choices"], q["question_type"], q["answer_type"], q["precision"])
        meta = {name: q[name] for name in ("choices", "answer_type", "precision")}
        row = {"truth": q["answer"], "meta": meta, "reply": reply, "key": "extraction"}
        yield row, float(answer == q["answer"])
