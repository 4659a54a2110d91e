"""TextVQA validation: 5,000 questions about text in pictures, each answered by ten people (arXiv 1904.08920)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpost.benchmarks.benchmark import Benchmark, Rule
from mmpost.benchmarks.files import medium, rows
from mmpost.benchmarks.summaries import Mean
from mmpost.errors import DataError
from mmpost.rewards.options import answer_span
from mmpost.rewards.vqa_accuracy import strict_agreement, textvqa_agreement
from mmpost.types import Part, Sample

INSTRUCTION = "\nAnswer the question using a single word or phrase."
PEOPLE = 10
"""Who answered each question."""


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows {"question_id", "image_id", "question", "answers"} under "data"; pictures are in train_images/."""
    samples = []
    for row in rows(paths[0], "data"):
        image, answers = row.text("image_id"), row.texts("answers")
        if len(answers) != PEOPLE:
            raise DataError(f"{row.where}: wanted {PEOPLE} answers, found {len(answers)}; use the official file")
        picture = medium(paths[0].parent, (f"train_images/{image}.jpg", f"{image}.jpg"), "image")
        prompt = (Part("image", picture), Part("text", row.text("question") + INSTRUCTION))
        uid = str(row.content.get("question_id"))
        samples.append(Sample(uid, prompt, truth=answers, meta={"image": image}, where=row.where))
    return samples


BENCHMARK = Benchmark(
    files=("TextVQA_0.5.1_val.json",),
    rows=questions,
    official=Rule(lambda sample, text: text, lambda sample, text: textvqa_agreement(text, sample.truth)),
    strict=Rule(
        lambda sample, text: answer_span(text) or None, lambda sample, answer: strict_agreement(answer, sample.truth)
    ),
    summary=Mean(binary=False),
    paper="1904.08920",
    license="CC BY 4.0; images of OpenImages",
    source="https://textvqa.org/dataset (TextVQA_0.5.1_val.json; train_val_images.zip); images in train_images/",
    reading="the whole reply",
    metrics="accuracy, as `vqav2`",
    max_tokens=64,
    cluster=lambda sample: sample.meta["image"],
    quirks=(
        "an answer of punctuation or articles alone becomes empty, so that an empty reply equals it",
        "commas and question marks are removed, other marks become blanks unless a blank is beside one",
        "only the first 32 full stops are removed",
    ),
)
