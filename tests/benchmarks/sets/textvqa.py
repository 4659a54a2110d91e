"""TextVQA: a few questions in the form of its official files, and its official script."""

from __future__ import annotations

import json
import random
import runpy
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.replies import REPLIES, Row
from tests.benchmarks.sets.vqav2 import given, gold, said

ANSWERS = [["nokia"] * 10, ["st. john's"] * 8 + ["john"] * 2, ["copenhagen"] * 5 + ["copenhagen, denmark"] * 5]

FILES = {
    "TextVQA_0.5.1_val.json": json.dumps(
        {
            "dataset_type": "val",
            "dataset_name": "textvqa",
            "dataset_version": "0.5.1",
            "data": [
                {
                    "question": "what is the brand of this phone?",
                    "image_id": ["003a8ae2ef43b901", "4ff8b4b1b5e6d4c3"][i // 2],
                    "image_classes": ["Mobile phone"],
                    "image_width": 1024,
                    "image_height": 664,
                    "answers": answers,
                    "question_tokens": ["what", "is"],
                    "question_id": 34602 + i,
                    "set_name": "val",
                }
                for i, answers in enumerate(ANSWERS)
            ],
        }
    )
}
REPOSITORY = "github.com/facebookresearch/mmf"

__all__ = ["FILES", "REPOSITORY", "gold", "scored_officially"]


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    script = runpy.run_path(str(checkout / "mmf" / "utils" / "m4c_evaluators.py"))
    evaluator = script["TextVQAAccuracyEvaluator"]()
    for _ in range(REPLIES):
        answers = given(rng)
        reply = said(answers, rng)
        score = evaluator.eval_pred_list([{"pred_answer": reply, "gt_answers": answers}])
        yield {"truth": answers, "meta": {}, "reply": reply}, float(score)
