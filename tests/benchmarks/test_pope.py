"""POPE: closed forms of its metrics, and every quirk of the official rule."""

from __future__ import annotations

import pytest

from mmpost.benchmarks.benchmark import Scored, benchmark
from mmpost.benchmarks.estimates import estimates
from mmpost.types import Sample
from tests.benchmarks.by_rule import official, strict


def test_pope_of_1200_hits_and_300_errors_of_each_kind() -> None:
    kinds = [("yes", "yes", 1200), ("no", "yes", 300), ("no", "no", 1200), ("yes", "no", 300)]
    scored = []
    for split in ("random", "popular", "adversarial"):
        for truth, said, count in kinds:
            sample = Sample(f"{split}{truth}{said}", (), truth=truth, meta={"split": split})
            scored += [Scored(sample, said, said, float(truth == said))] * count
    found = estimates(benchmark("pope").summary, [[each] for each in scored])
    assert next(iter(found)) == "f1"
    for split in ("random", "popular", "adversarial"):
        values = [found[f"{name}/{split}"]["value"] for name in ("accuracy", "precision", "recall", "f1", "yes")]
        assert values == pytest.approx([0.8, 0.8, 0.8, 0.8, 0.5])
    assert found["f1"]["value"] == pytest.approx(0.8)
    assert found["f1"]["n"] == 9000
    assert found["precision/random"]["n"] == 1500


def test_pope_counts_what_is_neither_as_wrong_but_not_as_yes() -> None:
    sample = Sample("s", (), truth="no", meta={"split": "random"})
    found = estimates(benchmark("pope").summary, [[Scored(sample, "maybe", None, 0.0)]])
    assert found["accuracy/random"]["value"] == found["yes/random"]["value"] == 0


def test_quirks_of_pope() -> None:
    assert official("pope", "yes", "") == 1
    assert strict("pope", "yes", "") == 0
    assert [official("pope", "no", text) for text in ("NO", "No\nnothing", "None. No", "No,")] == [0, 0, 0, 1]
    assert [strict("pope", "no", text) for text in ("NO", "No\nnothing", "None. No", "No,")] == [1, 1, 1, 1]
