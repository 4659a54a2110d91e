"""VQAv2: a few questions in the form of its official files, a right reply to them, and its official script."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, texts

PHRASE = ["black and white"] * 7 + ["a"] * 3
ANSWERS = [(["yes"] * 10, "yes/no"), (["2"] * 6 + ["two"] * 4, "number"), (PHRASE, "other")]
HEAD = {"info": {}, "task_type": "Open-Ended", "data_type": "mscoco", "license": {}, "data_subtype": "val2014"}

FILES = {
    "v2_OpenEnded_mscoco_val2014_questions.json": json.dumps(
        HEAD
        | {
            "questions": [
                {"image_id": 262148 + i // 2, "question": "What is it?", "question_id": 262148000 + i}
                for i, _ in enumerate(ANSWERS)
            ]
        }
    ),
    "v2_mscoco_val2014_annotations.json": json.dumps(
        HEAD
        | {
            "annotations": [
                {
                    "question_type": "what is",
                    "multiple_choice_answer": given[0],
                    "answers": [
                        {"answer": answer, "answer_confidence": "yes", "answer_id": place}
                        for place, answer in enumerate(given, 1)
                    ],
                    "image_id": 262148 + i // 2,
                    "answer_type": kind,
                    "question_id": 262148000 + i,
                }
                for i, (given, kind) in enumerate(ANSWERS)
            ]
        }
    ),
}
REPOSITORY = "github.com/GT-Vision-Lab/VQA"

SAID = [
    *("yes", "no", "2", "two", "none", "a", "the", "a dog", "black-white", "black - white", "1,000", "10:30", "u.s.a."),
    *("dont know", "can't", "3.5.", "it's", "St. John's", "left/right", "Coca Cola", "?", "y'alldve", "Im", "£5"),
]
FORMS = ["{}", "{}", "{}.", " {}\n", "{}!", "the {}", "{}\tred", "{}" + "." * 40, "5,000 {}"]


def gold(sample: Sample) -> str:
    return str(sample.truth[0])


def given(rng: random.Random) -> list[str]:
    """The answers of ten people: all the same, or of two to four kinds."""
    if rng.random() < 0.25:
        return [rng.choice(SAID)] * 10
    kinds = [rng.choice([str.upper, str.title, str])(each) for each in rng.sample(SAID, rng.randrange(2, 5))]
    return [rng.choice(kinds) for _ in range(10)]


def said(answers: list[str], rng: random.Random) -> str:
    """A reply, which is in half of the cases one of the answers."""
    reply = rng.choice(answers) if rng.random() < 0.5 else texts(rng.choice(answers), rng.sample(SAID, 2), rng)
    return rng.choice(FORMS).replace("{}", reply)


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    script = (checkout / "PythonEvaluationTools" / "vqaEvaluation" / "vqaEval.py").read_text(encoding="utf-8")
    namespace: dict[str, Any] = {}
    exec(compile(re.sub(r'print (".*")', r"print(\1)", script), "vqaEval.py", "exec"), namespace)
    rows: list[dict[str, Any]] = []
    for _ in range(REPLIES):
        answers = given(rng)
        rows.append({"truth": answers, "meta": {}, "reply": said(answers, rng)})
    truths = {
        i: {
            "question_type": "what is",
            "answer_type": "other",
            "answers": [{"answer": answer, "answer_id": place} for place, answer in enumerate(row["truth"], 1)],
        }
        for i, row in enumerate(rows)
    }
    vqa = SimpleNamespace(qa=truths, getQuesIds=lambda: list(truths))
    results = SimpleNamespace(qa={i: {"answer": row["reply"]} for i, row in enumerate(rows)})
    evaluation = namespace["VQAEval"](vqa, results, n=9)
    evaluation.updateProgress = lambda progress: None
    evaluation.evaluate()
    for i, row in enumerate(rows):
        yield row, evaluation.evalQA[i] / 100
