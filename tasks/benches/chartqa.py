"""ChartQA test: 2,500 questions about charts, half written by people, half by a machine (arXiv 2203.10244)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpost.benchmarks.benchmark import Benchmark, Rule
from mmpost.benchmarks.files import medium, rows
from mmpost.benchmarks.summaries import Mean
from mmpost.rewards.options import answer_span
from mmpost.rewards.relaxed import is_near, is_right
from mmpost.types import Part, Sample

SPLITS = ("human", "augmented")
"""Who wrote the questions: people, or a language model from summaries of charts."""
INSTRUCTION = "\nAnswer the question using a single word or phrase."


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows {"imgname", "query", "label"} of both files; charts are in png/. Ids: human/0, augmented/0 and so on."""
    samples = []
    for split, path in zip(SPLITS, paths, strict=True):
        for number, row in enumerate(rows(path)):
            chart = medium(path.parent, (f"png/{row.text('imgname')}", row.text("imgname")), "image")
            prompt = (Part("image", chart), Part("text", row.text("query") + INSTRUCTION))
            meta = {"image": row.text("imgname"), "groups": [split]}
            samples.append(Sample(f"{split}/{number}", prompt, truth=row.text("label"), meta=meta, where=row.where))
    return samples


BENCHMARK = Benchmark(
    files=tuple(f"test_{split}.json" for split in SPLITS),
    rows=questions,
    official=Rule(lambda sample, text: text, lambda sample, text: is_near(text, sample.truth)),
    strict=Rule(lambda sample, text: answer_span(text) or None, lambda sample, answer: is_right(answer, sample.truth)),
    summary=Mean("relaxed_accuracy"),
    paper="2203.10244",
    license="GPL-3.0",
    source="https://github.com/vis-nlp/ChartQA (ChartQA Dataset/test); charts in png/",
    reading="the whole reply",
    metrics="relaxed accuracy, by who wrote the question",
    max_tokens=128,
    cluster=lambda sample: sample.meta["image"],
    quirks=(
        "the authors released no script; this is the rule of pix2struct, which published numbers use",
        "years are numbers: 2019 answers 2010",
        "a percentage is a hundredth of its number: 5% answers 0.05, and neither 5 nor 100 answers 100%",
        "1,000 and $5 are words, so that 1000 does not answer 1,000; 0.0 does not answer 0",
        "blanks around words count: a line break after the right word makes it wrong",
    ),
)
