"""VQAv2 validation: 214,354 questions about pictures of COCO, each answered by ten people (arXiv 1612.00837)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpost.benchmarks.benchmark import Benchmark, Rule
from mmpost.benchmarks.files import Row, medium, rows
from mmpost.benchmarks.summaries import Mean
from mmpost.errors import DataError
from mmpost.rewards.options import answer_span
from mmpost.rewards.vqa_accuracy import official_agreement, strict_agreement
from mmpost.types import Part, Sample

INSTRUCTION = "\nAnswer the question using a single word or phrase."


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows {"question_id", "image_id", "question"} under "questions", with answers of the same id under "annotations".

    Pictures are in val2014/ or beside the files.
    """
    asked, annotated = paths
    found = {row.content.get("question_id"): _truth(row) for row in rows(annotated, "annotations")}
    samples = []
    for row in rows(asked, "questions"):
        uid, image = row.content.get("question_id"), row.content.get("image_id")
        text = row.text("question")
        if uid not in found or not isinstance(image, int):
            raise DataError(
                f"{row.where}: wanted a question with a picture and with answers in {annotated.name}, found question "
                f"{uid!r} of picture {image!r}; use the official files of one split"
            )
        answers, groups = found[uid]
        name = f"COCO_val2014_{image:012d}.jpg"
        prompt = (
            Part("image", medium(asked.parent, (f"val2014/{name}", name), "image")),
            Part("text", text + INSTRUCTION),
        )
        meta = {"image": str(image), "groups": groups}
        samples.append(Sample(str(uid), prompt, truth=answers, meta=meta, where=row.where))
    return samples


def _truth(row: Row) -> tuple[list[str], list[str]]:
    """The answers of all people, and the types of the question."""
    answers = row.content.get("answers")
    given = [each.get("answer") for each in answers] if isinstance(answers, list) else []
    if not given or not all(isinstance(each, str) for each in given):
        raise DataError(f"{row.where}: wanted answers of people, found {answers!r:.80}; use the official file")
    return given, [row.text("answer_type"), row.text("question_type")]


BENCHMARK = Benchmark(
    files=("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"),
    rows=questions,
    official=Rule(lambda sample, text: text, lambda sample, text: official_agreement(text, sample.truth)),
    strict=Rule(
        lambda sample, text: answer_span(text) or None, lambda sample, answer: strict_agreement(answer, sample.truth)
    ),
    summary=Mean(binary=False),
    paper="1612.00837",
    license="CC BY 4.0; images of COCO",
    source="https://visualqa.org/download.html; images in val2014/",
    reading="the whole reply",
    metrics="accuracy (agreement with nine of ten people), by type of answer and question",
    max_tokens=32,
    cluster=lambda sample: sample.meta["image"],
    quirks=(
        "where all ten people gave the same answer nothing is normalised: Yes does not answer yes",
        "an answer of articles alone becomes empty, so that an empty reply equals it",
        "a comma between digits anywhere removes all punctuation instead of replacing it by blanks",
        "only the first 32 full stops are removed",
    ),
)
