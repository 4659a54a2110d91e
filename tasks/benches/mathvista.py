"""MathVista testmini: 1,000 questions that need mathematics and a picture (arXiv 2310.02255)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpost.benchmarks.benchmark import Benchmark, Rule
from mmpost.benchmarks.files import medium, rows
from mmpost.benchmarks.summaries import Mean
from mmpost.errors import DataError
from mmpost.rewards.mathvista import extracted_answer, normal_answer, strict_answer, strict_score
from mmpost.types import Part, Sample

END = "and provide the {what}, e.g., {example}, at the end."
HINTS = {
    "text": f"Please answer the question {END}".format(what="correct option letter", example="A, B, C, D"),
    "integer": f"Please answer the question requiring an integer answer {END}".format(
        what="final value", example="1, 2, 3"
    ),
    "float": f"Please answer the question requiring a floating-point number with {{decimals}} {END}",
    "list": f"Please answer the question requiring a Python list as an answer {END}".format(
        what="final list", example="[1, 2, 3], [1.2, 1.3, 1.4]"
    ),
}
"""The official hint of each type of answer."""
DECIMALS = {1: ("one decimal place", "1.2, 1.3, 1.4"), 2: ("two decimal places", "1.23, 1.34, 1.45")}


def questions(paths: Sequence[Path]) -> list[Sample]:
    """The rows of testmini.json by pid; pictures are in images/. The prompt is the official one, with a hint."""
    samples = []
    for row in rows(paths[0]):
        kind, precision = row.text("answer_type"), row.content.get("precision")
        decimals, example = DECIMALS.get(precision or 0, ("", ""))
        if kind not in HINTS or (kind == "float" and not decimals):
            raise DataError(f"{row.where}: wanted a type of answer of testmini, found {kind!r}; use the official file")
        choices = None if row.content.get("choices") is None else row.texts("choices")
        unit = f" (Unit: {row.text('unit')})" if row.content.get("unit") else ""
        lines = [
            f"Hint: {HINTS[kind].format(decimals=decimals, what='final value', example=example)}",
            f"Question: {row.text('question')}{unit}",
        ]
        if choices is not None:
            lines += ["Choices:", *(f"({chr(ord('A') + i)}) {choice}" for i, choice in enumerate(choices))]
        picture = medium(paths[0].parent, (row.text("image"),), "image")
        metadata = row.content.get("metadata") or {}
        meta = {
            "choices": choices,
            "answer_type": kind,
            "precision": precision,
            "image": row.text("image"),
            "groups": [str(metadata.get("task")), *map(str, metadata.get("skills") or ())],
        }
        prompt = (Part("image", picture), Part("text", "\n".join(lines).strip()))
        samples.append(Sample(row.key or row.text("pid"), prompt, truth=row.text("answer"), meta=meta, where=row.where))
    return samples


def is_right(sample: Sample, answer: str | None) -> float:
    return float(answer == sample.truth)


BENCHMARK = Benchmark(
    files=("testmini.json",),
    rows=questions,
    official=Rule(lambda sample, text: normal_answer(sample, extracted_answer(sample, text)), is_right),
    by_key={"extraction": Rule(normal_answer, is_right)},
    strict=Rule(strict_answer, strict_score),
    summary=Mean(),
    paper="2310.02255",
    license="CC BY-SA 4.0",
    source="https://github.com/lupantech/MathVista (data/testmini.json; images on the hub as AI4Math/MathVista)",
    reading=(
        'by rules: tags, a box, "answer is", the last letter or number; `key=extraction` scores answers that the '
        "official language model has extracted, as the official script does"
    ),
    metrics="accuracy, by task and skill",
    hashes={"ab0148dca9d401c31cc47f29b3826eec28a76ff155a1c0878d81e8daf0413480": "release of 53d5258"},
    cluster=lambda sample: sample.meta["image"],
    quirks=(
        "the language model that extracts answers is replaced by rules, except with key=extraction",
        "an empty answer is the option nearest to nothing, which is right for 168 of 540 questions",
        "an integer is cut off: 14.7 answers 14",
    ),
)
