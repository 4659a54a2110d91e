"""MMBench: every quirk of VLMEvalKit's exact matching, circular groups, and the files of its versions."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mmpost.benchmarks.benchmark import benchmark
from mmpost.benchmarks.scoring import evaluate
from mmpost.errors import DataError
from mmpost.rewards.mmbench import exact_matching
from tests.benchmarks.by_rule import official, strict
from tests.benchmarks.sets.mmbench import PICTURE, QUESTIONS, tsv, turned
from tests.benchmarks.small_benches import write_questions

ANIMALS = ["teddy bear", "rabbit", "cat", "dog"]


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("a cat", "C"),
        ("It is a teddy bear, not a rabbit", None),
        ("A dog is on the mat", "D"),
        ("I choose A because the picture shows many things going on here today", None),
        ("A and B", None),
        ("A man", "A"),
        ("The answer is a dog", "A"),
        ("answer is because", "B"),
        ("**B**.", "B"),
        ("b", None),
        ("Cannot determine the answer, B", "Z"),
        ("Failed to obtain answer via API: B", None),
        ("", None),
    ],
)
def test_letters_that_exact_matching_reads(reply: str, letter: str | None) -> None:
    assert exact_matching(reply, ANIMALS) == letter


def test_what_pandas_reads_as_missing() -> None:
    assert exact_matching("B", ["a dog", "None"]) is None
    assert exact_matching("", ["banana", "nan", "a"]) == "C"
    assert official("mmbench", "C", "None", options=["banana", "dog", "a"]) == 1
    assert strict("mmbench", "B", "None", options=["a dog", "None"]) == 1


def test_mmbench_strictly() -> None:
    replies = ["C", "(C)", "b", "I think so.\nThe answer is (C) cat", "cat", "A man", "answer is because", "C or D", ""]
    assert [strict("mmbench", "C", text, options=ANIMALS) for text in replies] == [1, 1, 0, 1, 1, 0, 0, 0, 0]
    assert strict("mmbench", "A", "A dog is on the mat", options=ANIMALS) == 0


def test_long_replies_are_read_soon() -> None:
    start = time.process_time()
    for text in ("answer " * 15_000, "correct " + " " * 100_000, "answer" + " " * 100_000, "A " * 50_000):
        exact_matching(text, ANIMALS)
        strict("mmbench", "C", text, options=ANIMALS)
    assert time.process_time() - start < 1


def test_a_question_is_right_if_all_its_copies_are(tmp_path: Path) -> None:
    folder = tmp_path / "mmbench"
    folder.mkdir()
    rows = [*turned(1, ANIMALS, 0, category="a"), *turned(2, ANIMALS, 1, category="b")]
    (folder / "MMBench_DEV_CN.tsv").write_text(tsv(rows))
    bench = benchmark("mmbench")
    samples = list(bench.rows(bench.paths(tmp_path, "mmbench")))
    replies = {sample.uid: str(sample.truth) for sample in samples}
    replies["3000002"] = "Z"
    found = evaluate(bench, samples, replies, "mmbench")
    for by_rule in (found.official, found.strict):
        assert {name: (each["value"], each["n"]) for name, each in by_rule.items()} == {
            "circular": (0.5, 2),
            "circular/a": (1, 1),
            "circular/b": (0, 1),
            "vanilla": (0.875, 8),
        }
    assert next(iter(found.official)) == "circular"
    del replies["3000002"]
    found = evaluate(bench, samples, replies, "mmbench")
    assert (found.official["circular"]["value"], found.official["vanilla"]["n"]) == (1, 7)
    assert (found.strict["circular"]["value"], found.strict["vanilla"]["value"]) == (0.5, 0.875)
    del replies["2"]
    found = evaluate(bench, samples, replies, "mmbench")
    assert (found.official["circular"]["n"], found.strict["circular"]["value"]) == (1, 0.5)


def test_copies_of_a_question_have_its_picture(tmp_path: Path) -> None:
    write_questions("mmbench", tmp_path / "mmbench")
    bench = benchmark("mmbench")
    samples = list(bench.rows(bench.paths(tmp_path, "mmbench")))
    assert {sample.prompt[0].value.bytes() for sample in samples} == {bytes(range(99))}
    assert len({bench.cluster(sample) for sample in samples}) == 1
    assert "Hint: Look.\nQuestion: What is it?\nOptions:\nA. teddy bear\nB. rabbit" in samples[0].prompt[1].value
    assert [sample.truth for sample in samples] == ["C", "B", "A", "D", "A", "B"]


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    bench, folder = benchmark("mmbench"), tmp_path / "mmbench"
    folder.mkdir()
    with pytest.raises(DataError, match=r"wanted its official file MMBench_DEV_EN_V11\.tsv or MMBench_DEV_EN\.tsv or"):
        bench.paths(tmp_path, "mmbench")
    for row, message in [
        ({"answer": "E"}, "wanted the letter of one of 4 options in 'answer', found 'E'"),
        ({"image": "99"}, "wanted a picture in 'image', or the index of a row with one, found '99'"),
        ({"index": "x", "image": PICTURE}, "wanted a number in 'index', found 'x'"),
    ]:
        (folder / "MMBench_DEV_EN.tsv").write_text(tsv([QUESTIONS[0] | row]))
        with pytest.raises(DataError, match=rf"MMBench_DEV_EN\.tsv:2: {message}"):
            bench.rows(bench.paths(tmp_path, "mmbench"))
    (folder / "MMBench_DEV_EN_V11.tsv").write_text("")
    with pytest.raises(DataError, match=r"found some of MMBench_DEV_EN_V11\.tsv and of MMBench_DEV_EN\.tsv; move"):
        bench.paths(tmp_path, "mmbench")
