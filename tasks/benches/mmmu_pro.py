"""MMMU-Pro: 1,730 college questions with up to ten options, in text or in a screenshot (arXiv 2409.02813)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpost.benchmarks.benchmark import Benchmark, HubFiles, Rule
from mmpost.benchmarks.files import Row, picture, rows
from mmpost.benchmarks.summaries import Mean
from mmpost.rewards.mmmu_pro import mmmu_pro_letter
from mmpost.rewards.options import named_letter
from mmpost.tasks.benches.mmmu import DISCIPLINES, drawn_letters, list_in, parts
from mmpost.types import Part, Sample

DIRECT = "Answer with the option letter from the given choices directly."
LAST_LINE = (
    " The last line of your response should be of the following format: 'Answer: $LETTER' (without quotes) where "
    "LETTER is one of options."
)
"""Of the official prompts for direct answers; that for text and pictures has the first sentence alone."""


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows {"id", "options", "answer", "subject"} with "question" and "image_1" to "image_7", or with a screenshot in
    "image" that holds question and options."""
    return [_question(row) for path in paths for row in rows(path)]


def _question(row: Row) -> Sample:
    options, subject = list_in(row, "options"), row.text("subject")
    discipline = next((name for name, subjects in DISCIPLINES.items() if subject in subjects), "other")
    meta = {"options": options, "groups": [discipline, subject]}
    if row.content.get("image") is not None:
        prompt = (Part("text", DIRECT + LAST_LINE), Part("image", picture(row, "image")))
    else:
        lines = [f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(options)]
        prompt = tuple(parts(row, "\n".join([row.text("question"), *lines, DIRECT])))
    return Sample(row.text("id"), prompt, truth=row.text("answer"), meta=meta, where=row.where)


def read(sample: Sample, text: str) -> str | None:
    return mmmu_pro_letter(sample, text)


def read_all(replies: Sequence[tuple[Sample, str]]) -> list[Any]:
    return drawn_letters(replies, read)


def is_right(sample: Sample, letter: str | None) -> float:
    return float(letter == sample.truth)


def shards(setting: str, count: int) -> tuple[str, ...]:
    """The names of the files of a setting."""
    return tuple(f"{setting}/test-{i:05}-of-{count:05}.parquet" for i in range(count))


BENCHMARK = Benchmark(
    files=shards("standard (10 options)", 2),
    versions=(shards("vision", 4), shards("standard (4 options)", 2)),
    rows=questions,
    official=Rule(read, is_right, read_all=read_all),
    strict=Rule(lambda sample, text: named_letter(text, sample.meta["options"]), is_right),
    summary=Mean(),
    paper="2409.02813",
    license="Apache-2.0",
    source="the hub's MMMU/MMMU_Pro",
    reading=(
        'the only letter after the last "Answer:", else the last in parentheses, else one before a blank or full '
        "stop, else the last option whose text occurs"
    ),
    metrics=(
        "accuracy, by discipline and subject (the published score is the mean of the settings with ten options and "
        "with screenshots)"
    ),
    hub=HubFiles("MMMU/MMMU_Pro"),
    quirks=(
        "a letter at random where none is read, an empty reply among them: by the official script without a seed, here "
        "with 42",
        '"Answer: Because" names B, if no other letter occurs after the last "Answer:"',
        '"DNA test" names A: a capital before a blank or a full stop counts within a word, too',
    ),
)
