"""OCRBench v1: 1,000 questions about text in pictures, from 29 sets (arXiv 2305.07895)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpost.benchmarks.benchmark import Benchmark, Rule
from mmpost.benchmarks.files import medium, rows
from mmpost.benchmarks.summaries import Mean
from mmpost.rewards.ocr import has_text, has_words
from mmpost.rewards.text import answer_or_text
from mmpost.types import Part, Sample

FORMULAS = "HME100k"
"""The set whose texts are formulas."""


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows {"dataset_name", "id", "image_path", "question", "answers", "type"}; pictures are in OCRBench_Images/."""
    samples = []
    for row in rows(paths[0]):
        path, kind, source = row.text("image_path"), row.text("type"), row.text("dataset_name")
        image = medium(paths[0].parent, (f"OCRBench_Images/{path}", path), "image")
        answers = row.content.get("answers")
        truth = row.texts("answers") if isinstance(answers, list) else [row.text("answers")]
        recognition = ["Recognition"] if kind.endswith("Text Recognition") or kind in RECOGNITION else []
        meta = {"formula": source == FORMULAS, "image": path, "groups": [kind, *recognition]}
        prompt = (Part("image", image), Part("text", row.text("question")))
        samples.append(Sample(row_id(row.content), prompt, truth=truth, meta=meta, where=row.where))
    return samples


RECOGNITION = ("Handwriting Recognition", "Digit String Recognition")
"""Types besides those of text recognition that the script adds up as recognition."""


def row_id(row: Mapping[str, Any]) -> str:
    """The numbers of questions are their own in each set."""
    return f"{row.get('dataset_name')}/{row.get('id')}"


BENCHMARK = Benchmark(
    files=("OCRBench.json",),
    rows=questions,
    official=Rule(lambda sample, text: text, has_text),
    strict=Rule(lambda sample, text: answer_or_text(text) or None, has_words),
    summary=Mean(),
    paper="2305.07895",
    license="MIT; pictures of 29 sets",
    source="https://github.com/Yuliang-Liu/MultimodalOCR (OCRBench)",
    reading="the whole reply",
    metrics="accuracy, by type (the published score is that of 1,000: 10 times the percentage)",
    row_id=row_id,
    max_tokens=128,
    cluster=lambda sample: sample.meta["image"],
    quirks=(
        "a text counts wherever it occurs, so that long replies score more, and 5 is in 15",
        "in formulas blanks do not count, and case does",
    ),
)
