"""HallusionBench: a few questions in the form of its official files, a right reply, and its official script."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, functions

PLACES = [("VD", 0, 0), ("VD", 0, 1), ("VD", 1, 0), ("VD", 1, 1), ("VS", 0, 0), ("VS", 1, 0), ("VS", 2, 0)]
QUESTIONS = [
    {
        "category": category,
        "subcategory": "illusion" if category == "VD" else "chart",
        "visual_input": str(figure) if category == "VS" else str(figure + 1),
        "set_id": "0",
        "figure_id": str(figure),
        "sample_note": "circle",
        "question_id": str(question),
        "question": "Is the right circle larger than the left circle?",
        "gt_answer_details": "They are of the same size.",
        "gt_answer": str((figure + question) % 2),
        "filename": None if category == "VS" and not figure else f"./{category}/illusion/0_{figure}.png",
    }
    for category, figure, question in PLACES
]

FILES = {"HallusionBench.json": json.dumps(QUESTIONS)}
REPOSITORY = "github.com/tianyi-lab/HallusionBench"


def gold(sample: Sample) -> str:
    return str(sample.truth).title()


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    """Verdicts of the judge, which cannot be asked here, and what the script makes of them."""
    (assign,) = functions(checkout / "utils.py", ["assign_correctness"])
    key = "gpt4v_output_gpt_check"
    for row in rng.sample(json.loads((checkout / "HallusionBench.json").read_text(encoding="utf-8")), REPLIES):
        (scored,) = assign([row | {key: rng.choice("012")}], key)
        meta = {"no_figure": row["category"] == "VS" and row["figure_id"] == "0"}
        truth = "yes" if row["gt_answer"] == "1" else "no"
        yield {"truth": truth, "meta": meta, "reply": scored[key], "key": key}, float(scored["correct"])
