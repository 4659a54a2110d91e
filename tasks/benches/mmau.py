"""MMAU test-mini: 1,000 multiple-choice questions about sound, music and speech (arXiv 2410.19168)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmpost.benchmarks.benchmark import Benchmark, Rule
from mmpost.benchmarks.files import medium, rows
from mmpost.benchmarks.summaries import Mean
from mmpost.data.formats.choices import choice_sample
from mmpost.rewards.choice import mmau_exact, mmau_match
from mmpost.rewards.text import answer_or_text
from mmpost.types import Sample

TEMPLATE = "{question} Please choose the answer from the following options: {choices}."


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows {"id", "audio_id", "question", "choices", "answer", "task", "difficulty", "sub-category"}."""
    samples = []
    for row in rows(paths[0]):
        clip = medium(paths[0].parent, (row.text("audio_id"),), "audio")
        meta = {name: row.text(name) for name in ("task", "difficulty", "sub-category")}
        answer, choices = row.text("answer"), row.texts("choices")
        samples.append(choice_sample(row.text("id"), clip, row.text("question"), choices, answer, TEMPLATE, meta))
    return samples


def groups(sample: Sample) -> Iterator[str]:
    yield from (sample.meta[name] for name in ("task", "difficulty", "sub-category"))


def has_its_words(sample: Sample, reading: str) -> float:
    return float(mmau_match(sample.truth, reading, sample.meta["choices"]))


def is_the_option(sample: Sample, reading: str | None) -> float:
    return float(reading is not None and mmau_exact(sample.truth, reading, sample.meta["choices"]))


BENCHMARK = Benchmark(
    files=("mmau-test-mini.json",),
    rows=questions,
    official=Rule(lambda sample, text: text, has_its_words, missing="left out"),
    strict=Rule(lambda sample, text: answer_or_text(text) or None, is_the_option),
    summary=Mean(groups=groups),
    paper="2410.19168",
    license="Apache-2.0",
    source="https://github.com/Sakshi113/MMAU (mmau-test-mini.json); clips in test-mini-audios/",
    reading="the whole reply",
    metrics="accuracy, by task, difficulty and sub-category",
    max_tokens=256,
    hashes={"9f18fda99f8dbc2bc5ecd6323fb5063309f54969810b5c6f1caeb3b8d904cf1c": "release of 110127f"},
    quirks=(
        "questions without a prediction are left out, so that fewer answers may score higher",
        "a reply needs all words of the option, articles too, and none that only another option has",
        "words are compared as sets: an option with the same words in another order is right",
    ),
)
