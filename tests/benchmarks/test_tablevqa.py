"""TableVQA-Bench: every quirk of the official rules, and where the ids of its files of predictions are from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmpost.benchmarks.benchmark import benchmark
from mmpost.benchmarks.predictions import Predictions
from mmpost.commands.score import score
from mmpost.rewards.table_answers import amounts, normal_text
from tests.benchmarks.by_rule import official, strict
from tests.benchmarks.sets.tablevqa import TRUTHS, gold
from tests.benchmarks.small_benches import write_questions


@pytest.mark.parametrize(
    ("part", "reply", "truth", "by_rule", "strictly"),
    [
        ("vwtq", "2.0", "2", 1, 1),
        ("vwtq", "1,000", "1000", 0, 1),
        ("vwtq", "leon balcer (Quebec)", "Léon Balcer", 1, 1),
        ("vwtq", "Denver[1]*", "Denver.", 1, 1),
        ("vwtq", "2.9999999", "2", 1, 1),
        ("vwtq", "Japan||France", "France|Japan", 1, 1),
        ("vwtq", "France, Japan", "France|Japan", 0, 1),
        ("vwtq", "France, Japan and Peru", "France|Japan", 0, 0),
        ("vwtq", "France", "France|Japan", 0, 0),
        ("vwtq", "2004-02-29", "2004-2-29", 1, 1),
        ("vwtq", "The answer is 2.", "2", 0, 1),
        ("vwtq", "", "", 1, 0),
        ("vtabfact", "Untrue", "1", 1, 0),
        ("vtabfact", "True", "1", 1, 1),
        ("vtabfact", "True, not false", "1", 0, 0),
        ("vtabfact", "FALSE.", "0", 1, 1),
        ("vtabfact", "", "0", 0, 0),
        ("fintabnetqa", "12 thousand", "12 million", 1, 0),
        ("fintabnetqa", "$641.8 million", "$641.8", 1, 1),
        ("fintabnetqa", "0.12 billion", "120 million", 1, 1),
        ("fintabnetqa", "3.14", "3.14 %", 1, 1),
        ("fintabnetqa", "576,000 square feet", "576,000", 1, 1),
        ("fintabnetqa", "Milwaukee WI", "Milwaukee, WI", 1, 1),
        ("fintabnetqa", "It is 39%", "39%", 0, 0),
        ("fintabnetqa", "The answer is 39%.", "39%", 0, 1),
        ("fintabnetqa", "", "39%", 0, 0),
    ],
)
def test_quirks_of_tablevqa(part: str, reply: str, truth: str, by_rule: int, strictly: int) -> None:
    scores = [rule("tablevqa", truth, reply, part=part) for rule in (official, strict)]
    assert scores == [by_rule, strictly]


def test_texts_of_wikitablequestions() -> None:
    texts = ["[x] y[z]", "[7]", "(500)", "a (b) (c)", '"a" (b)', '"a" "b"', "13\u201314 ", "a [b] (c)[1] (d)†", "a[b]c"]
    assert [*map(normal_text, texts)] == ["[x] y", "", "(500)", "a", "a", '"a" "b"', "13-14", "a", "a[b]c"]


def test_amounts_of_fintabnetqa() -> None:
    assert amounts("$3.2 billion") == (3.2e9, 3.2)
    assert amounts("34.2 %") == (0.342, 34.2)
    assert amounts("17 weeks") == ("17 weeks", "17 weeks")


def test_a_file_for_each_part_names_the_part(tmp_path: Path) -> None:
    write_questions("tablevqa", tmp_path / "tablevqa")
    bench = benchmark("tablevqa")
    samples = {s.uid: s for s in bench.rows(bench.paths(tmp_path, "tablevqa"))}
    (tmp_path / "said").mkdir()
    for part, rows in TRUTHS.items():
        replies = [{"qa_id": i, "question": "?", "gt": t, "pred": gold(samples[f"{part}/{i}"])} for i, t in rows]
        (tmp_path / "said" / f"{part}.json").write_text(json.dumps(replies))
    found = score(["bench=tablevqa", f"predictions={tmp_path / 'said'}", f"data.benches={tmp_path}"])
    assert (found["official"]["accuracy"]["value"], found["missing"]) == (1, 0)
    (tmp_path / "all.jsonl").write_text(json.dumps({"id": "vwtq/nu-806", "reply": "x"}))
    assert Predictions(bench, ["vwtq/nu-806"]).read(tmp_path / "all.jsonl") == {"vwtq/nu-806": "x"}


def test_a_truth_that_is_neither_true_nor_false_is_named(tmp_path: Path) -> None:
    write_questions("tablevqa", tmp_path / "tablevqa")
    paths = benchmark("tablevqa").paths(tmp_path, "tablevqa")
    with pytest.raises(ValueError, match=r"vwtq-00000-of-00001-764eb826ab450a91\.parquet:1: wanted 0 or 1 in 'gt'"):
        benchmark("tablevqa").rows([*paths[:2], paths[0], paths[3]])
