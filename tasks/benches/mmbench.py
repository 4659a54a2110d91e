"""MMBench: abilities of perception and reasoning, each question asked with its options turned (arXiv 2307.06281)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmpost.benchmarks.benchmark import Benchmark, Metric, Numbers, Rule, Scored
from mmpost.benchmarks.choices_tsv import choices
from mmpost.benchmarks.summaries import Mean
from mmpost.errors import DataError
from mmpost.rewards.mmbench import exact_matching
from mmpost.rewards.options import named_letter
from mmpost.types import Sample

TURN = 1_000_000
"""Indices of the turned copies of a question are those of the question, and so much higher for each turn."""


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows of `choices` with "category" and "l2-category", by index; "question" is the index of the first copy."""
    samples, clusters = [], {}
    for choice in choices(paths[0]):
        if not choice.index.isdecimal():
            raise DataError(f"{choice.row.where}: wanted a number in 'index', found {choice.index!r:.80}; correct it")
        question = str(int(choice.index) % TURN)
        groups = [str(choice.row.content[name]) for name in ("l2-category", "category") if name in choice.row.content]
        meta = {
            "options": choice.options,
            "question": question,
            "cluster": clusters.setdefault(question, choice.picture_id),
            "groups": list(dict.fromkeys(groups)),
        }
        samples.append(Sample(choice.index, choice.prompt, truth=choice.answer, meta=meta, where=choice.row.where))
    return samples


CIRCULAR, VANILLA = Mean("circular"), Mean("vanilla", groups=lambda sample: ())


class Circular:
    """The share of questions with all copies right, also by ability, and beside it that of all copies.

    A question counts if its first copy does, by the copies that do.
    """

    def count(self, cluster: Sequence[Scored]) -> Mapping[str, float]:
        copies: dict[str, list[Scored]] = defaultdict(list)
        for scored in cluster:
            copies[scored.sample.meta["question"]].append(scored)
        whole = [
            first._replace(score=min(each.score for each in copies[question]))
            for question in copies
            for first in copies[question]
            if first.sample.uid == question
        ]
        return _named(CIRCULAR, whole) | _named(VANILLA, cluster)

    def metrics(self, sums: Mapping[str, Numbers]) -> dict[str, Metric]:
        found: dict[str, Metric] = {}
        for mean in (CIRCULAR, VANILLA):
            start = f"{mean.name} "
            found |= mean.metrics({name.removeprefix(start): v for name, v in sums.items() if name.startswith(start)})
        return found


def _named(mean: Mean, scored: Sequence[Scored]) -> dict[str, float]:
    return {f"{mean.name} {name}": value for name, value in mean.count(scored).items()}


def is_right(sample: Sample, letter: str | None) -> float:
    return float(letter == sample.truth)


OFFICIAL = Rule(lambda sample, text: exact_matching(text, sample.meta["options"]), is_right, missing="left out")
STRICT = Rule(lambda sample, text: named_letter(text, sample.meta["options"]), is_right)

BENCHMARK = Benchmark(
    files=("MMBench_DEV_EN_V11.tsv",),
    versions=(
        *((f"MMBench_DEV_{version}.tsv",) for version in ("EN", "CN_V11", "CN")),
        *((f"mmbench_dev_{language}.tsv",) for language in ("en", "cn", "pt", "ar", "tr", "ru")),
    ),
    rows=questions,
    official=OFFICIAL,
    strict=STRICT,
    summary=Circular(),
    paper="2307.06281",
    license="Apache-2.0",
    source="https://github.com/open-compass/VLMEvalKit (addresses in vlmeval/dataset/image_mcq.py)",
    reading=(
        'VLMEvalKit\'s exact matching: the only letter, among the last four words, or after "answer is"; else the '
        "only option whose text occurs"
    ),
    metrics="circular accuracy (all turned copies right), by ability; vanilla accuracy",
    max_tokens=128,
    cluster=lambda sample: sample.meta["cluster"],
    quirks=(
        "a letter counts as the only one, among the last four words; so A may be an article",
        '"The answer is because" names B: a letter after "answer is" may begin a word',
        "an option None, NA or null is none, since pandas reads it as missing; a reply None or nothing becomes nan",
        "a question without a prediction for its first copy is left out; copies without one are, too",
    ),
)
