"""MMStar: 1,500 multiple-choice questions that cannot be answered without the picture (arXiv 2403.20330)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpost.benchmarks.benchmark import Benchmark, HubFiles, Rule
from mmpost.benchmarks.files import picture, rows
from mmpost.benchmarks.summaries import Mean
from mmpost.errors import DataError
from mmpost.rewards.mmstar import LETTERS, mmstar_letters, plain_letter
from mmpost.types import Part, Sample

INSTRUCTION = "\nAnswer with the option's letter from the given choices directly."


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows {"index", "question", "image", "answer", "category", "l2_category"}; the question holds the options."""
    samples = []
    for row in rows(paths[0]):
        answer = row.text("answer")
        if answer not in LETTERS:
            raise DataError(f"{row.where}: wanted a letter in 'answer', found {answer!r:.80}; use the official file")
        meta = {"groups": [row.text("category"), row.text("l2_category")]}
        prompt = (Part("image", picture(row, "image")), Part("text", row.text("question") + INSTRUCTION))
        samples.append(Sample(str(row.content.get("index")), prompt, truth=answer, meta=meta, where=row.where))
    return samples


BENCHMARK = Benchmark(
    files=("mmstar.parquet",),
    rows=questions,
    official=Rule(
        lambda sample, text: mmstar_letters(text), lambda sample, letters: float(sample.truth.lower() in letters)
    ),
    strict=Rule(lambda sample, text: plain_letter(text), lambda sample, letter: float(letter == sample.truth)),
    summary=Mean(),
    paper="2403.20330",
    license="CC BY 4.0",
    source="the hub's Lin-Chen/MMStar",
    reading='the first character, also after "(", "option " and "the answer is "',
    metrics="accuracy, by category",
    hub=HubFiles("Lin-Chen/MMStar"),
    quirks=(
        "only the beginning of a reply counts: an answer after a thought is wrong",
        '"Dogs" answers D',
    ),
)
