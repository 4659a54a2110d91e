"""MMMB: multiple choice of 15 kinds in six languages (arXiv 2406.02539)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpost.benchmarks.benchmark import Benchmark, HubFiles
from mmpost.benchmarks.choices_tsv import choices
from mmpost.benchmarks.summaries import MacroMean
from mmpost.tasks.benches.mmbench import OFFICIAL, STRICT
from mmpost.types import Sample

LANGUAGES = ("en", "cn", "pt", "ar", "tr", "ru")


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows of `choices` of the six files, by language and index."""
    samples = []
    for language, path in zip(LANGUAGES, paths, strict=True):
        for choice in choices(path):
            meta = {"options": choice.options, "picture": choice.picture_id, "group": language}
            uid = f"{language}/{choice.index}"
            samples.append(Sample(uid, choice.prompt, truth=choice.answer, meta=meta, where=choice.row.where))
    return samples


BENCHMARK = Benchmark(
    files=tuple(f"mmmb_{language}.tsv" for language in LANGUAGES),
    rows=questions,
    official=OFFICIAL,
    strict=STRICT,
    summary=MacroMean(),
    paper="2406.02539",
    license="Apache-2.0",
    source="the hub's AIDC-AI/Parrot-dataset (mmmb/)",
    reading=(
        'VLMEvalKit\'s exact matching: the only letter, among the last four words, or after "answer is"; else the '
        "only option whose text occurs"
    ),
    metrics="mean accuracy of the six languages, and each; accuracy over all questions",
    hub=HubFiles("AIDC-AI/Parrot-dataset", "mmmb"),
    max_tokens=128,
    cluster=lambda sample: sample.meta["picture"],
    quirks=(
        "the rule is that of MMBench, but each question counts for itself: VLMEvalKit compares turned copies only in "
        "benchmarks with mmbench in their name",
        "a question without a prediction is left out",
    ),
)
