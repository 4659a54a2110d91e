"""DocVQA: a few questions in the form of its official files, a right reply to them, and its official script."""

from __future__ import annotations

import argparse
import json
import random
import runpy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, texts

QUESTIONS = [
    {
        "questionId": 337 + i,
        "question": "what is the date mentioned in this letter?",
        "question_types": types,
        "image": f"documents/xnbl0037_{page}.png",
        "docId": 279,
        "ucsf_document_id": "xnbl0037",
        "ucsf_document_page_no": str(page),
        "answers": answers,
        "data_split": "val",
    }
    for i, (answers, types, page) in enumerate(
        [
            (["1/8/93"], ["handwritten", "form"], 1),
            (["University of California", "University of California, San Diego"], ["layout"], 1),
            (["5"], ["table/list"], 2),
        ]
    )
]
HEAD = {"dataset_name": "SP-DocVQA", "dataset_version": "1.0", "dataset_split": "val"}

FILES = {"val_v1.0_withQT.json": json.dumps({**HEAD, "data": QUESTIONS})}
REPOSITORY = "github.com/QwenLM/Qwen-VL"
"""It has a copy of the challenge's script (eval_mm/infographicsvqa_eval.py), which is given out after registration."""

ANSWERS = [
    *("1/8/93", "University of California", "$1,234.50", "5", "0.28", "ITC Limited", "Q2 FY 18 results", "Straße 12"),
    *("R. J. Reynolds Tobacco Company", "İstanbul", "Dr. J. R.  Smith", "", "no", "the White House"),
]


def gold(sample: Sample) -> str:
    return str(sample.truth[0])


def misread(text: str, rng: random.Random) -> str:
    """A text with up to two characters dropped, doubled or replaced, and blanks around it or in it."""
    characters = list(text)
    for _ in range(rng.randrange(3)):
        if characters:
            place = rng.randrange(len(characters))
            characters[place] = rng.choice(["", characters[place] * 2, rng.choice("xX .,ß")])
    return rng.choice(["", " ", "\n\n", "  \t "]) + "".join(characters) + rng.choice(["", " ", " " * 40])


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    script = runpy.run_path(str(checkout / "eval_mm" / "infographicsvqa_eval.py"))
    rows: list[dict[str, Any]] = []
    for _ in range(REPLIES):
        accepted = rng.sample(ANSWERS, rng.randrange(1, 4))
        reply = misread(accepted[0], rng) if rng.random() < 0.4 else texts(accepted[0], rng.sample(ANSWERS, 2), rng)
        rows.append({"truth": accepted, "meta": {}, "reply": reply})
    truths = [{"questionId": i, "question": "?", "answers": row["truth"]} for i, row in enumerate(rows)]
    with tempfile.TemporaryDirectory() as folder:
        truth, submission = Path(folder, "truth.json"), Path(folder, "submission.json")
        truth.write_text(json.dumps({**HEAD, "data": truths}))
        submission.write_text(json.dumps([{"questionId": i, "answer": row["reply"]} for i, row in enumerate(rows)]))
        script["validate_data"](truth, submission)
        parameters = argparse.Namespace(anls_threshold=0.5, answer_types=False)
        scores = script["evaluate_method"](truth, submission, parameters)["per_sample_result"]
    for i, row in enumerate(rows):
        yield row, float(scores[str(i)]["score"])
