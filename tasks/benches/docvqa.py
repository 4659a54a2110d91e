"""DocVQA validation: 5,349 questions about scanned pages, answered by their text (arXiv 2007.00398)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpost.benchmarks.benchmark import Benchmark, Rule
from mmpost.benchmarks.files import medium, rows
from mmpost.benchmarks.summaries import Mean
from mmpost.rewards.anls import official_similarity, strict_similarity
from mmpost.rewards.options import answer_span
from mmpost.types import Part, Sample

INSTRUCTION = "\nAnswer the question using a single word or phrase."
FOLDERS = ("spdocvqa_images", "images")
"""Where pages lie, unless at the path in their rows."""


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows {"questionId", "question", "image", "answers", "question_types"} under "data"."""
    samples = []
    for row in rows(paths[0], "data"):
        page = row.text("image")
        places = (page, *(f"{folder}/{Path(page).name}" for folder in FOLDERS))
        prompt = (
            Part("image", medium(paths[0].parent, places, "image")),
            Part("text", row.text("question") + INSTRUCTION),
        )
        meta = {"image": page, "groups": row.texts("question_types") if row.content.get("question_types") else []}
        uid = str(row.content.get("questionId"))
        samples.append(Sample(uid, prompt, truth=row.texts("answers"), meta=meta, where=row.where))
    return samples


OFFICIAL = Rule(lambda sample, text: text, lambda sample, text: official_similarity(text, sample.truth))
STRICT = Rule(
    lambda sample, text: answer_span(text) or None, lambda sample, answer: strict_similarity(answer, sample.truth)
)
QUIRKS = (
    "blanks are no errors, but count in the length that errors are divided by: blanks around a reply raise its score",
    "a similarity of exactly 0.5 counts; by the paper's formula it does not",
    "all of a reply is compared, so that a sentence around the right answer makes it wrong",
)

BENCHMARK = Benchmark(
    files=("val_v1.0_withQT.json",),
    rows=questions,
    official=OFFICIAL,
    strict=STRICT,
    summary=Mean("anls", binary=False),
    paper="2007.00398",
    license="pages of the UCSF Industry Documents Library, for research",
    source="https://rrc.cvc.uab.es/?ch=17 (task 1); pages in documents/ or spdocvqa_images/",
    reading="the whole reply",
    metrics="ANLS, by type of question",
    max_tokens=128,
    cluster=lambda sample: sample.meta["image"],
    quirks=QUIRKS,
)
