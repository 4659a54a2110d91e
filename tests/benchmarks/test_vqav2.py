"""VQAv2 and TextVQA: every quirk of the official rules, and the closed form of the agreement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmpost.benchmarks.benchmark import benchmark
from mmpost.errors import DataError
from mmpost.rewards.vqa_accuracy import agreement, normal_answer, textvqa_answer
from tests.benchmarks.by_rule import official, strict
from tests.benchmarks.small_benches import write_questions

NAMES = ("vqav2", "textvqa")


@pytest.mark.parametrize("same", range(11))
def test_agreement_with_some_of_ten_people(same: int) -> None:
    given = ["dog"] * same + ["cat"] * (10 - same)
    assert agreement("dog", given) == pytest.approx([0, 0.3, 0.6, 0.9, *[1] * 7][same])


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("1,000", "1000"),
        ("black-white", "black white"),
        ("black - white", "black white"),
        ("a/b, c", "b c"),
        ("u.s.a.", "usa"),
        ("3.5.", "3.5"),
        ("Ten dogs", "10 dogs"),
        ("dont", "don't"),
        ("IM", "im"),
        ("The", ""),
        ("1,000 left/right", "1000 leftright"),
        ("." * 40, "." * 8),
    ],
)
def test_how_vqav2_normalises(text: str, normal: str) -> None:
    assert normal_answer(text) == normal


def test_how_textvqa_normalises() -> None:
    texts = ["St. John's", "left/right?", "1,000", "don't, stop"]
    assert [textvqa_answer(text) for text in texts] == ["st john 's", "left right", "1000", "don't stop"]


@pytest.mark.parametrize(
    ("reply", "given", "vqav2", "textvqa", "strictly"),
    [
        ("Yes", ["yes"] * 10, 0, 1, 1),
        ("yes", ["yes"] * 10, 1, 1, 1),
        ("yes.", ["yes"] * 10, 0, 1, 1),
        ("Yes.", ["yes"] * 9 + ["no"], 1, 1, 1),
        ("two", ["2"] * 3 + ["3"] * 7, 0.9, 0.9, 0.9),
        ("", ["a"] * 2 + ["b"] * 8, 0.6, 0.6, 0),
        ("the dog", ["dog"] * 4 + ["a cat"] * 6, 1, 1, 1),
        ("The answer is dog", ["dog"] * 4 + ["cat"] * 6, 0, 0, 1),
        ("a dog or a cat", ["dog"] * 4 + ["cat"] * 6, 0, 0, 0),
        ("**dog**", ["dog"] * 4 + ["cat"] * 6, 0, 0, 1),
    ],
)
def test_quirks_of_vqa_accuracy(reply: str, given: list[str], vqav2: float, textvqa: float, strictly: float) -> None:
    by_rule = [official(name, given, reply) for name in NAMES]
    assert by_rule == pytest.approx([vqav2, textvqa])
    assert [strict(name, given, reply) for name in NAMES] == pytest.approx([strictly] * 2)


def test_questions_without_answers_are_named(tmp_path: Path) -> None:
    bench = benchmark("vqav2")
    write_questions("vqav2", tmp_path / "vqav2")
    paths = bench.paths(tmp_path, "vqav2")
    content = json.loads(paths[1].read_text())
    content["annotations"].pop()
    paths[1].write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"questions, row 3: wanted a question with .* found question 262148002"):
        bench.rows(paths)
    content["annotations"][0]["answers"] = []
    paths[1].write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"annotations, row 1: wanted answers of people, found \[\]"):
        bench.rows(paths)
    paths[1].write_text("{")
    with pytest.raises(DataError, match=r"v2_mscoco_val2014_annotations\.json: wanted a JSON object"):
        bench.rows(paths)


def test_textvqa_needs_the_answers_of_ten_people(tmp_path: Path) -> None:
    bench = benchmark("textvqa")
    write_questions("textvqa", tmp_path / "textvqa")
    (path,) = bench.paths(tmp_path, "textvqa")
    path.write_text(path.read_text().replace('"nokia", ', "", 1))
    with pytest.raises(DataError, match="data, row 1: wanted 10 answers, found 9"):
        bench.rows([path])
