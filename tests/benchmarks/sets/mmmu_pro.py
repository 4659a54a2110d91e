"""MMMU-Pro: a few questions in the form of its official files, a right reply to them, and its official script."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy

from mmpost.tasks.benches.mmmu_pro import shards
from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, functions, texts


def _rows_of(number: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"test_Art_{number}{i}",
            "question": "Which of <image 1> is it?",
            "options": str([f"the option {letter}" for letter in "abcdefghij"]),
            "answer": answer,
            "subject": subject,
            **{f"image_{i}": {"bytes": b"png", "path": "1.png"} if i == 1 else None for i in range(1, 8)},
        }
        for i, (answer, subject) in enumerate([("B", "Art"), ("J", "Math")])
    ]


FILES = {file: _rows_of(number) for number, file in enumerate(shards("standard (10 options)", 2))}
REPOSITORY = "github.com/MMMU-Benchmark/MMMU"
FORMS = (
    *("Answer: {}", "So.\nAnswer: ({})", "Answer: {} or {}", "Answer: because {}", "Answer: {}\nAnswer: ", "Answer:"),
    *("{} {}", "{}. {}", "I say {}. Not {}.", "It is {} as one can see in DNA tests", "** {} **", "{}.{}.", "({}) ({}"),
    *("We see in the picture that it is {}, not {}", "x{} y{} z", "{}\nas it is", "{}) is right", "Final Answer: {}."),
)


def gold(sample: Sample) -> str:
    return f"So it is.\nAnswer: {sample.truth}"


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    draws = random.Random(42)
    names = ["parse_multi_choice_response", "get_multi_choice_info"]
    parse, info = functions(checkout / "mmmu-pro" / "evaluate.py", names, random=draws, np=numpy)
    words = ["a dog", "a cat", "12", "12.5 m", "Paris", "the long river", "A", "yes", "$x = 3$", "DNA", "a river", "no"]
    for _ in range(REPLIES):
        options = rng.sample(words, rng.randrange(2, 11))
        texts_by_letter, letters = info(options)
        truth = rng.choice(letters)
        right = [truth, truth, f"({truth})", options[letters.index(truth)]]
        if rng.random() < 0.5:
            reply = rng.choice(FORMS)
            while "{}" in reply:
                reply = reply.replace("{}", rng.choice([*right, *right, *letters]), 1)
        else:
            reply = texts(rng.choice(right), options, rng)
        said = parse(reply, letters, texts_by_letter)
        yield {"truth": truth, "meta": {"options": options}, "reply": reply}, float(said == truth)
