"""MMMU-Pro: every quirk of the official rule, and its settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import Table, parquet

from mmpost.benchmarks.benchmark import benchmark
from mmpost.rewards.mmmu_pro import mmmu_pro_letter
from mmpost.tasks.benches.mmmu_pro import shards
from mmpost.types import Sample
from tests.benchmarks.by_rule import strict
from tests.benchmarks.sets.mmmu_pro import FILES
from tests.benchmarks.small_benches import write_questions

OPTIONS = {"options": ["a dog", "a cat", "a cow", "a pig", "two pigs"]}


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("Answer: C", "C"),
        ("(A)\nAnswer: Because", "B"),
        ("Answer: A\nAnswer: (B)", "B"),
        ("Answer: A or C, so (D)", "D"),
        ("A or (C)", "C"),
        ("DNA test", "A"),
        ("B. Then C.", "C"),
        ("It may be E.B. or so", "B"),
        ("It must surely be two pigs then", "E"),
        ("B)", None),
        ("**B**", None),
        ("", None),
    ],
)
def test_letters_that_mmmu_pro_reads(reply: str, letter: str | None) -> None:
    assert mmmu_pro_letter(Sample("s", (), truth="B", meta=OPTIONS), reply) == letter


def test_mmmu_pro_draws_the_same_letter_for_the_same_place_in_the_data() -> None:
    rule = benchmark("mmmu_pro").official
    replies = [(Sample(str(i), (), truth="B", meta=OPTIONS), ["", "(B)"][i % 2]) for i in range(30)]
    drawn = rule.readings(replies)
    assert drawn == rule.readings(replies)
    assert set(drawn[1::2]) == {"B"}
    assert len(set(drawn[::2])) == 5


def test_mmmu_pro_strictly() -> None:
    replies = ["**B**", "B)", "Answer: B", "a cat", "Answer: Because", "DNA test", ""]
    assert [strict("mmmu_pro", "B", text, **OPTIONS) for text in replies] == [1, 1, 1, 1, 0, 0, 0]


def test_questions_of_both_settings(tmp_path: Path) -> None:
    bench = benchmark("mmmu_pro")
    write_questions("mmmu_pro", tmp_path / "mmmu_pro")
    samples = list(bench.rows(bench.paths(tmp_path, "mmmu_pro")))
    assert [part.modality for part in samples[0].prompt] == ["text", "image", "text"]
    assert samples[0].meta["groups"] == ["Art and Design", "Art"]
    assert "\nJ. the option j\nAnswer with" in samples[0].prompt[2].value
    (folder := tmp_path / "screenshots" / "vision").mkdir(parents=True)
    row = next(iter(FILES.values()))[0]
    screenshot = {name: row[name] for name in ("id", "options", "answer", "subject")} | {"image": {"bytes": b"png"}}
    for file in shards("vision", 4):
        parquet.write_table(Table.from_pylist([screenshot]), folder.parent / file)
    samples = list(bench.rows(bench.paths(folder.parent, "mmmu_pro")))
    assert len(samples) == 4
    assert [part.modality for part in samples[0].prompt] == ["text", "image"]
    assert samples[0].prompt[0].value.endswith("where LETTER is one of options.")
