"""Video-MME: a few questions in the form of its official file, a right reply to them, and its official script."""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import tempfile
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, functions, texts

QUESTIONS = [
    {
        **{"video_id": f"{i // 2:03}", "videoID": f"v{i // 2}", "question_id": f"{i // 2:03}-{i % 2 + 1}"},
        **{"duration": duration, "domain": "Multilingual", "sub_category": "Multilingual"},
        **{"task_type": "Counting Problem", "question": "How many?", "answer": answer},
        "options": ["A. Apples.", "B. Candles.", "C. Berries.", "D. The three kinds are of the same number."],
    }
    for i, (duration, answer) in enumerate([("short", "C"), ("short", "A"), ("long", "D")])
]
FILES = {"videomme/test-00000-of-00001.parquet": QUESTIONS}
REPOSITORY = "github.com/thanku-all/parse_answer"
DURATIONS = ("short", "medium", "long")


def gold(sample: Sample) -> str:
    return f"{sample.truth}."


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float | None]]:
    (extract,) = functions(checkout / "eval_your_results.py", ["extract_characters_regex"], re=re)
    beginnings = [
        *(
            "The best answer is",
            "The correct answer is",
            "The answer is",
            "The best option is",
            "The correct option is",
        ),
        *("Best answer:", "Best option:", "Answer:", "Option:", "The correct option", "Because", "Based on it,"),
        *("The best option isThe correct option is", "Best answer:Best option:", "I think that it must be one of the"),
    ]
    words = ["apples", "Berries.", "Candles", "Dogs and cats", "the three kinds are of the same number"]
    for _ in range(REPLIES):
        truth = rng.choice("ABCD")
        reply = texts(rng.choice([truth, f"{truth}. {rng.choice(words)}", f"({truth})"]), words, rng)
        if rng.random() < 0.4:
            reply = f"{rng.choice(beginnings)} {reply}"
        letter = extract(reply)
        meta = {"groups": [rng.choice(DURATIONS)]}
        yield {"truth": truth, "meta": meta, "reply": reply}, float(letter == truth) if letter else None


def metrics_officially(checkout: Path, rows: Sequence[Row]) -> dict[str, float]:
    """What the script prints in percent with one decimal, here with all of them."""
    source = (checkout / "eval_your_results.py").read_text(encoding="utf-8").replace(": .1f", ": .12f")
    namespace: dict[str, typing.Any] = {"__name__": "script"}
    exec(compile(source, "eval_your_results.py", "exec"), namespace)
    videos = [
        {
            **{"duration": row["meta"]["groups"][0], "domain": "Multilingual", "sub_category": "Multilingual"},
            "questions": [{"task_type": "Counting Problem", "answer": row["truth"], "response": row["reply"]}],
            "missing": False,
        }
        for row in rows
    ]
    printed = io.StringIO()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file, contextlib.redirect_stdout(printed):
        json.dump(videos, file)
        file.flush()
        namespace["eval_your_results"](file.name, list(DURATIONS), skip_missing=True, return_categories_accuracy=False)
    values = [float(found) / 100 for found in re.findall(r"Overall:\s+([\d.]+)%", printed.getvalue())]
    return dict(zip([*(f"accuracy/{duration}" for duration in DURATIONS), "accuracy"], values, strict=True))
