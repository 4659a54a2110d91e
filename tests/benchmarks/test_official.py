"""The official rules score as the official code did: replies and scores in official/, by official_scores.py."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from mmpost.benchmarks.benchmark import benchmark
from mmpost.benchmarks.scoring import evaluate
from mmpost.types import Sample
from tests.benchmarks.official_scores import FOLDER, NAMES

ROUNDING = 1e-8
"""Graded scores may be sums in another order."""
ROUNDED = 5.1e-5
"""Official metrics are printed in percent with two decimals."""


def stored(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    first, *rows = map(json.loads, (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
    return first, rows


@pytest.mark.parametrize("name", NAMES)
def test_each_reply_scores_as_officially(name: str) -> None:
    source, rows = stored(name)
    assert len(source["commit"]) == 40
    assert len(rows) >= 1000
    assert (FOLDER / f"{name}.jsonl").stat().st_size < 200_000
    bench = benchmark(name)
    rule = bench.by_key.get(rows[0].get("key", ""), bench.official)
    samples = [Sample(str(i), (), (), row["truth"], row["meta"]) for i, row in enumerate(rows)]
    readings = rule.readings([(sample, row["reply"]) for sample, row in zip(samples, rows, strict=True)])
    scores = [rule.scored(sample, reading) for sample, reading in zip(samples, readings, strict=True)]
    differing = [
        row
        for row, score in zip(rows, scores, strict=True)
        if score != row["official"] and (None in (score, row["official"]) or abs(score - row["official"]) > ROUNDING)
    ]
    assert not differing
    right = sum((row["official"] or 0) > 0.5 for row in rows)
    assert 100 < right < len(rows) - 100
    replies = {sample.uid: row["reply"] for sample, row in zip(samples, rows, strict=True)}
    if source.get("metrics"):
        alone = replace(bench, strict=bench.official, cluster=lambda sample: sample.uid)
        found = evaluate(alone, samples, replies, name).official
        assert {metric: found[metric]["value"] for metric in source["metrics"]} == pytest.approx(
            source["metrics"], abs=ROUNDED
        )
