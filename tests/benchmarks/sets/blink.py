"""BLINK: a few questions in the form of its official files, a right reply to them, and its official script."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmpost.tasks.benches.blink import TASKS
from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, functions, texts


def _rows_of(task: str) -> list[dict[str, Any]]:
    return [
        {
            "idx": f"val_{task}_{number}",
            "question": "Which?",
            "sub_task": task,
            "choices": ["the first", "the second", "the third"],
            "answer": answer,
            "prompt": "Which?\nSelect from the following choices.\n(A) the first\n(B) the second\n(C) the third",
            **{f"image_{i}": {"bytes": b"png", "path": "1.png"} if i < 3 else None for i in range(1, 5)},
        }
        for number, answer in enumerate(["(A)", "(C)"], 1)
    ]


FILES = {f"{task}/val-00000-of-00001.parquet": _rows_of(task) for task in TASKS}
REPOSITORY = "github.com/zeyofu/BLINK_Benchmark"
FORMS = (
    *("The answer is:\n\n{}", "{} is not it.\n\n{} is", "{} or {}\n\n{}", "{}\n\nSo I say {}.", "{} because {} is not"),
    *("{}.", "**{}**", "{}\n\n", "{} {}", "{}, {}", "Of {} and {} I choose {} ", "\t{}\n\n\n{}", "(E) {}"),
    "{}\u2003it is",
)


def gold(sample: Sample) -> str:
    return str(sample.truth)


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    def language_model(*_: str) -> str:
        return "(Z)"

    file = checkout / "eval" / "test_benchmark.py"
    (analyze,) = functions(file, ["analyze_answer"], match_multiple_choice=language_model)
    words = ["yes", "the left one", "12", "A", "(A)", "a house (B)", "the second image"]
    for _ in range(REPLIES):
        options = rng.sample(words, rng.randrange(2, 6))
        letters = [f"({letter})" for letter in "ABCDE"[: len(options)]]
        truth = rng.choice(letters)
        if rng.random() < 0.5:
            reply = rng.choice(FORMS)
            while "{}" in reply:
                reply = reply.replace("{}", rng.choice([truth, truth, *letters]), 1)
        else:
            reply = texts(rng.choice([truth, truth, options[letters.index(truth)]]), [*options, *letters], rng)
        said = analyze({"question": "?", "choices": options}, reply, letters)
        yield {"truth": truth, "meta": {"options": options}, "reply": reply}, float(said == truth)
