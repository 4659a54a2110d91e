"""PubTabNet: annotations as truth, TEDS and S-TEDS by kind of table, and every quirk of the official rule."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from mmpost.benchmarks.benchmark import Scored, benchmark
from mmpost.benchmarks.estimates import estimates
from mmpost.commands.score import score
from mmpost.errors import DataError
from mmpost.rewards.table import TableScores, pubtabnet_scores, strict_scores
from mmpost.types import Sample
from tests.benchmarks.by_rule import official, strict
from tests.benchmarks.small_benches import small, write_questions

BARE = "<table><tr><td>a</td><td>b</td></tr><tr><td>c</td><td>d</td></tr></table>"
GOLD = f"<html><body>{BARE}</body></html>"


def both(reply: str) -> tuple[float, float]:
    return official("pubtabnet", GOLD, reply), strict("pubtabnet", GOLD, reply)


def test_tables_of_the_validation_split_are_read(tmp_path: Path) -> None:
    write_questions("pubtabnet", tmp_path / "pubtabnet")
    bench = benchmark("pubtabnet")
    complex_table, simple = bench.rows(bench.paths(tmp_path, "pubtabnet"))
    assert [(s.uid, s.meta["kind"]) for s in (complex_table, simple)] == [
        ("PMC2_001_00.png", "complex"),
        ("PMC3_001_00.png", "simple"),
    ]
    assert complex_table.truth == (
        '<html><body><table><thead><tr><td colspan="2"><b>A</b></td></tr></thead>'
        "<tbody><tr><td>p&lt;5</td><td></td></tr></tbody></table></body></html>"
    )


def test_only_documents_count_officially() -> None:
    for reply in (BARE, f"```html\n{GOLD}\n```", f"Here it is: {GOLD}", f"<answer>{GOLD}</answer>", f"<body>{BARE}"):
        assert both(reply) == (0, 1)
    for reply in (GOLD, f"<!DOCTYPE html>{BARE}", f"<style></style>{BARE}"):
        assert both(reply) == (1, 1)
    assert both(f"<html><div>{BARE}</div>") == (0, 1)
    assert both("<fcel>a<fcel>b<nl><fcel>c<fcel>d<nl>") == (0, 1)
    assert both("") == both("a b c d") == (0, 0)


def test_header_cells_are_no_cells() -> None:
    headed = GOLD.replace("<td>a</td>", "<th>a</th>")
    assert both(headed) == (pytest.approx(1 - 1 / 6), pytest.approx(1 - 1 / 6))
    sample = Sample("s", (), truth=headed)
    assert pubtabnet_scores(sample, headed.replace("<th>a", "<th>b")).teds == 1


def test_empty_tags_raise_only_the_official_score() -> None:
    wrong = "<html><table><tr><td>{}</td></tr></table>"
    plain, padded = both(wrong.format("x")), both(wrong.format("x" + "<b></b>" * 50))
    assert padded[0] > 0.8 > plain[0]
    assert padded[1] == pytest.approx(plain[1], abs=0.01)


def test_tables_that_share_nothing_are_below_0_only_officially() -> None:
    column = "<html><table>" + "".join(f"<tr><td>{letter}</td></tr>" for letter in "abcdef") + "</table>"
    row = "<html><table><tr>" + "".join(f"<td>{letter}</td>" for letter in "uvwxyz") + "</tr></table>"
    sample = Sample("s", (), truth=row)
    assert pubtabnet_scores(sample, column) == (pytest.approx(-1 / 12), pytest.approx(5 / 12))
    assert strict_scores(sample, column) == (0, pytest.approx(5 / 12))


def test_means_of_simple_and_complex_tables() -> None:
    def scored(kind: str, reading: TableScores | None) -> list[Scored]:
        score = 0.0 if reading is None else reading.teds
        return [Scored(Sample("s", (), meta={"kind": kind}), "", reading, score)]

    one = [scored("simple", TableScores(1, 1)), scored("simple", TableScores(0.5, 1)), scored("complex", None)]
    found = estimates(benchmark("pubtabnet").summary, one)
    assert {name: (e["value"], e["n"]) for name, e in found.items()} == {
        **{"teds": (0.5, 3), "teds/simple": (0.75, 2), "teds/complex": (0, 1)},
        **{"s_teds": (pytest.approx(2 / 3), 3), "s_teds/simple": (1, 2), "s_teds/complex": (0, 1)},
    }


def test_predictions_of_the_official_form(tmp_path: Path) -> None:
    write_questions("pubtabnet", tmp_path / "pubtabnet")
    bench = benchmark("pubtabnet")
    first, *_ = bench.rows(bench.paths(tmp_path, "pubtabnet"))
    (tmp_path / "p.json").write_text(json.dumps({first.uid: small("pubtabnet").gold(first)}))
    result = score(["bench=pubtabnet", f"predictions={tmp_path / 'p.json'}", f"data.benches={tmp_path}"])
    assert [result["official"][name]["value"] for name in ("teds", "teds/complex", "s_teds")] == [0.5, 1, 0.5]
    assert result["missing"] == 1


def test_a_file_without_the_validation_split(tmp_path: Path) -> None:
    file = tmp_path / "PubTabNet_2.0.0.jsonl"
    file.write_text(json.dumps(small("pubtabnet").QUESTIONS[0]))
    with pytest.raises(DataError, match="wanted rows whose split is val, found none"):
        benchmark("pubtabnet").rows([file])
    file.write_text(json.dumps(small("pubtabnet").QUESTIONS[1] | {"html": {"cells": []}}))
    with pytest.raises(
        DataError, match=r"PubTabNet_2\.0\.0\.jsonl:1: wanted a list of tokens.*'html.structure.tokens'"
    ):
        benchmark("pubtabnet").rows([file])


@pytest.mark.parametrize("piece", ["<td>", "<tr>", "<table>", "<html>", "<answer>", "<b>", "&", "<fcel>a", "x"])
def test_long_replies_take_seconds_at_most(piece: str) -> None:
    reply = f"<html><table><tr>{piece * (100_000 // len(piece))}"
    start = time.process_time()
    both(reply)
    assert time.process_time() - start < 5
