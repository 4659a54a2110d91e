"""MMMB: each question counts for itself, and each language as much."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpost.benchmarks.benchmark import benchmark
from mmpost.benchmarks.scoring import evaluate
from tests.benchmarks.by_rule import official, strict
from tests.benchmarks.small_benches import write_questions


def test_languages_count_alike_and_questions_for_themselves(tmp_path: Path) -> None:
    write_questions("mmmb", tmp_path / "mmmb")
    bench = benchmark("mmmb")
    samples = list(bench.rows(bench.paths(tmp_path, "mmmb")))
    assert [sample.uid for sample in samples[:4]] == ["en/0", "en/1", "en/2", "cn/0"]
    replies = {sample.uid: str(sample.truth) for sample in samples}
    del replies["en/1"], replies["en/2"], replies["cn/0"]
    replies["en/0"] = "B"
    found = evaluate(bench, samples, replies, "mmmb")
    assert next(iter(found.official)) == "accuracy"
    assert [found.official[name]["n"] for name in ("accuracy", "accuracy/en", "accuracy/cn")] == [15, 1, 2]
    assert found.official["accuracy"]["value"] == 5 / 6
    assert found.official["micro"]["value"] == 14 / 15
    assert found.strict["accuracy"]["value"] == pytest.approx((0 + 2 / 3 + 4) / 6)
    assert {bench.cluster(sample) for sample in samples} == {samples[0].meta["picture"]}


def test_words_of_other_languages() -> None:
    options = {"options": ["一只猫", "狗"]}
    assert [official("mmmb", "A", text, **options) for text in ("一只猫。", "答案是A", "A。", "A")] == [1, 0, 0, 1]
    assert [strict("mmmb", "A", text, **options) for text in ("一只猫", "A", "答案是狗")] == [1, 1, 0]
