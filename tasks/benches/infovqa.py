"""InfographicVQA validation: 2,801 questions about infographics, scored as DocVQA's (arXiv 2104.12756)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpost.benchmarks.benchmark import Benchmark
from mmpost.benchmarks.files import medium, rows
from mmpost.benchmarks.summaries import Mean
from mmpost.tasks.benches.docvqa import INSTRUCTION, OFFICIAL, QUIRKS, STRICT
from mmpost.types import Part, Sample

TYPES = ("answer_type", "evidence", "operation/reasoning")
"""Lists of the kinds of a question, in the files "withQT"."""
FOLDERS = ("infographicsvqa_images", "images")


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows {"questionId", "question", "image_local_name", "answers"} under "data"; with the types of a question."""
    samples = []
    for row in rows(paths[0], "data"):
        name = row.text("image_local_name")
        picture = medium(paths[0].parent, (*(f"{folder}/{name}" for folder in FOLDERS), name), "image")
        prompt = (Part("image", picture), Part("text", row.text("question") + INSTRUCTION))
        groups = [kind for types in TYPES if row.content.get(types) for kind in row.texts(types)]
        meta, uid = {"image": name, "groups": groups}, str(row.content.get("questionId"))
        samples.append(Sample(uid, prompt, truth=row.texts("answers"), meta=meta, where=row.where))
    return samples


BENCHMARK = Benchmark(
    files=("infographicsVQA_val_v1.0_withQT.json",),
    rows=questions,
    official=OFFICIAL,
    strict=STRICT,
    summary=Mean("anls", binary=False),
    paper="2104.12756",
    license="infographics from the web, for research",
    source="https://rrc.cvc.uab.es/?ch=17 (task 3); pictures in infographicsvqa_images/",
    reading="the whole reply",
    metrics="ANLS, by types of answer, evidence and operation",
    max_tokens=128,
    cluster=lambda sample: sample.meta["image"],
    quirks=QUIRKS,
)
