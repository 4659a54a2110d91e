"""MMAU: a few questions in the form of its official files, a right reply to them, and its official script."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, functions, texts

QUESTIONS = [
    {
        "id": str(i),
        "audio_id": f"./test-mini-audios/{i}.wav",
        "question": "Who speaks?",
        "choices": ["A man", "A woman", "A child"],
        "answer": answer,
        "task": task,
        "difficulty": "easy",
        "sub-category": "Counting",
        "category": "Reasoning",
    }
    for i, (answer, task) in enumerate(
        [("A man", "sound"), ("A woman", "sound"), ("A child", "music"), ("A man", "speech")]
    )
]

FILES = {"mmau-test-mini.json": json.dumps(QUESTIONS)}
REPOSITORY = "github.com/Sakshi113/MMAU"


def gold(sample: Sample) -> str:
    return str(sample.truth)


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    (match,) = functions(checkout / "evaluation.py", ["string_match"], re=re)
    questions = json.loads((checkout / "mmau-test-mini.json").read_text(encoding="utf-8"))
    for _ in range(REPLIES):
        question = rng.choice(questions)
        truth, choices = question["answer"], question["choices"]
        reply = texts(truth, [c for c in choices if c != truth], rng)
        yield {"truth": truth, "meta": {"choices": choices}, "reply": reply}, float(match(truth, reply, choices))
