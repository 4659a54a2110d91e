"""MMMU: a few questions in the form of its official files, a right reply to them, and its official script."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy

from mmpost.tasks.benches.mmmu import SUBJECTS
from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, functions, texts


def _rows_of(subject: str, number: int) -> list[dict[str, Any]]:
    choice = {"question": "What is <image 1>?", "options": "['a dog', 'a cat']", "answer": "B"}
    free = {"question": "How many?", "options": "[]", "answer": ["3.5", "['1,000', '1000 m']"][number % 2]}
    kind = {"question_type": "open"} if number % 3 == 0 else {"question_type": "multiple-choice"}
    row = (free if number % 3 == 0 else choice) | kind | {"id": f"validation_{subject}_1"}
    return [row | {f"image_{i}": {"bytes": b"png", "path": "1.png"} if i == 1 else None for i in range(1, 8)}]


FILES = {f"{subject}/validation-00000-of-00001.parquet": _rows_of(subject, i) for i, subject in enumerate(SUBJECTS)}
REPOSITORY = "github.com/MMMU-Benchmark/MMMU"


def gold(sample: Sample) -> str:
    return f"({sample.truth})" if sample.meta["options"] is not None else str(sample.truth[0])


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    source = checkout / "mmmu" / "utils" / "eval_utils.py"
    names = [
        *("parse_multi_choice_response", "parse_open_response", "eval_multi_choice", "eval_open"),
        *("check_is_number", "normalize_str", "extract_numbers"),
    ]
    draws = random.Random(42)
    parse, parse_open, is_right, is_right_open, *_ = functions(source, names, re=re, random=draws, np=numpy)
    words = ["a dog", "a cat", "12", "12.5 m", "Paris", "the long river", "A", "yes", "$x = 3$"]
    for _ in range(REPLIES):
        options = rng.sample(words, rng.randrange(2, 6))
        letters = "ABCDEF"[: len(options)]
        if rng.random() < 0.6:
            truth = rng.choice(letters)
            reply = texts(rng.choice([truth, options[letters.index(truth)]]), options, rng)
            said = parse(reply, list(letters), dict(zip(letters, options, strict=True)))
            yield {"truth": truth, "meta": {"options": options}, "reply": reply}, float(is_right(truth, said))
        else:
            accepted = options[: rng.randrange(1, 3)]
            forms = ["{}", "so the answer is {}", "x = {}", "the value is {}.\nIt could be {}", "thus\n{}"]
            reply = rng.choice(forms).replace("{}", texts(accepted[0], options, rng))
            row = {"truth": accepted, "meta": {"options": None}, "reply": reply}
            yield row, float(is_right_open(accepted, parse_open(reply)))
