"""`mmpost check bench=a,b data.train=...`: which questions of benchmarks are in the training data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmpost.benchmarks.contamination import KINDS, Findings, FindingsFile, Index
from mmpost.benchmarks.questions import Questions
from mmpost.checks.report import Report, number
from mmpost.config import run_config
from mmpost.config.settings import DataSettings
from mmpost.core.run_files import write
from mmpost.data.readers.user_data import user_data
from mmpost.errors import ConfigError
from mmpost.types import Sample

BARE = {"task": {"name": "grpo", "rewards": {}}}
"""The section `data` belongs to the configuration of a task; this one has none of its own."""
SHOWN = 5
"""Findings printed of each benchmark."""


def check_benches(arguments: Mapping[str, Any], report: Report | None = None) -> FindingsFile:
    """Look for the questions of the benchmarks `bench=a,b` (in the folder `data.benches`) in `data.train`.

    Prints how many were found by what, and the first ones; writes all to `out=FILE`, which `mmpost score` reads as
    `without`. `media=false` compares words alone. Raises ConfigError without benchmarks, their folder or training data,
    DataError for files, rows or media that cannot be read.
    """
    overrides = dict(arguments)
    names, with_media = str(overrides.pop("bench")).split(","), overrides.pop("media", True)
    if not isinstance(with_media, bool):
        raise ConfigError(f"wanted media=true or false, found media={with_media!r}; correct it")
    config, paths = run_config.load([BARE, overrides])
    train = [config.data.train] if isinstance(config.data.train, str) else list(config.data.train or ())
    if not train:
        raise ConfigError("wanted training data to look for questions in, found none; set data.train=FILE")
    index, asked = Index(with_media), [Questions.load(name, config.data.benches) for name in names]
    for questions in asked:
        index.add(questions.name, questions.bench, questions.samples)
    counted: Counter[str] = Counter()
    found = index.search(_samples(config.data, train, counted))
    result = FindingsFile(
        train=train,
        samples=counted.total(),
        benches={
            questions.name: Findings(
                release=questions.release,
                questions=len(questions.samples),
                only_media=index.only_media[questions.name],
                found={question.uid: each for question, each in found.items() if question.bench == questions.name},
            )
            for questions in asked
        },
    )
    _print(result, with_media, report or Report())
    if "out" in paths:
        write(Path(paths["out"]), json.dumps(result.model_dump(), indent=1).encode())
    return result


def _samples(data: DataSettings, train: list[str], counted: Counter[str]) -> Iterator[Sample]:
    """All training samples, those of a weighted mixture once; a row with several turns is one."""
    for name in train:
        source = user_data(data.model_copy(update={"train": name, "split": None}), "train", loss="last")
        assert source is not None
        for place in range(len(source)):
            yield source[place]
            counted[name] += 1


def _print(result: FindingsFile, with_media: bool, report: Report) -> None:
    report.section(f"questions in {', '.join(result.train)} ({number(result.samples)} samples)")
    rows = []
    for name, findings in result.benches.items():
        by = Counter(kind for each in findings.found.values() for kind in {finding.kind for finding in each})
        media = [number(by[kind]) if with_media else "not compared" for kind in KINDS[:2]]
        counts = [number(n) for n in (findings.questions, len(findings.found), by["text"], findings.only_media)]
        rows.append((name, *counts[:2], *media, *counts[2:]))
    names = ("bench", "questions", "found", "same file", "looks alike", "13 words", "only media compared")
    report.table(*names, rows=rows, right=(1, 2, 3, 4, 5, 6))
    for name, findings in result.benches.items():
        for uid, each in list(findings.found.items())[:SHOWN]:
            report.say(f"{name} {uid}: {each[0].row}, {each[0].kind}: {each[0].what:.80}")
