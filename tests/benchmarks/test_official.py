"""The official rules score as the official code did: replies and scores in official/, by official_scores.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mmpost.benchmarks.benchmark import benchmark
from mmpost.types import Sample
from tests.benchmarks.official_scores import FOLDER, NAMES


def stored(name: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
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
    scores = [rule.score(sample, reading) for sample, reading in zip(samples, readings, strict=True)]
    differing = [row for row, score in zip(rows, scores, strict=True) if abs(score - row["official"]) > 1e-8]
    assert not differing
    assert 100 < sum(row["official"] > 0.5 for row in rows) < len(rows) - 100
