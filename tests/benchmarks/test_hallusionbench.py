"""HallusionBench: closed forms of its metrics, and every quirk of the official rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpost.benchmarks.benchmark import Scored, benchmark
from mmpost.benchmarks.estimates import estimates
from mmpost.types import Sample
from tests.benchmarks.by_rule import official, strict
from tests.benchmarks.small_benches import write_questions


@pytest.mark.parametrize(
    ("reply", "truth", "no_figure", "by_rule", "strictly"),
    [
        ("Yes", "yes", False, 1, 1),
        ("NO, there is yes written on it", "no", False, 1, 1),
        ("It does. So yes.", "yes", False, 1, 1),
        ("yes or no", "yes", False, 0, 0),
        ("It may be yes or no", "yes", False, 0, 0),
        ("It may be yes or no", "yes", True, 1, 0),
        ("I cannot see a figure", "no", True, 1, 0),
        ("I cannot see a figure", "no", False, 0, 0),
        ("Yes", "no", True, 0, 0),
        ("", "no", True, 1, 0),
        ("", "no", False, 0, 0),
    ],
)
def test_quirks_of_hallusionbench(reply: str, truth: str, no_figure: bool, by_rule: int, strictly: int) -> None:
    scores = [rule("hallusionbench", truth, reply, no_figure=no_figure) for rule in (official, strict)]
    assert scores == [by_rule, strictly]


def test_the_judge_s_verdicts_are_scored_by_a_rule_of_their_own() -> None:
    rule = benchmark("hallusionbench").by_key["gpt4v_output_gpt_check"]
    samples = [Sample("s", (), truth="yes", meta={"no_figure": no_figure}) for no_figure in (False, True)]
    scores = [[rule.score(sample, rule.read(sample, text)) for text in ("0", "1", "2", "?")] for sample in samples]
    assert scores == [[0, 1, 0, 0], [0, 1, 1, 0]]


def test_consistency_of_questions_and_figures(tmp_path: Path) -> None:
    write_questions("hallusionbench", tmp_path / "hallusionbench")
    bench = benchmark("hallusionbench")
    samples = bench.rows(bench.paths(tmp_path, "hallusionbench"))
    assert [len(sample.prompt) for sample in samples] == [2, 2, 2, 2, 1, 2, 2]
    wrong = {"VD/illusion/0/1/0", "VS/chart/0/2/0"}
    scored = [Scored(sample, "", "", float(sample.uid not in wrong)) for sample in samples]
    found = estimates(bench.summary, [scored[:4], scored[4:]])
    values = {name: (estimate["value"], estimate["n"]) for name, estimate in found.items()}
    assert values["aAcc"] == (pytest.approx(5 / 7), 7)
    assert values["qAcc"] == (pytest.approx(1 / 3), 3)
    assert values["fAcc"] == (0.5, 4)
    assert values["easy"] == (1, 3)
    assert values["hard"] == (pytest.approx(1 / 3), 3)
    assert values["fAcc/VS"] == (0.5, 2)
    assert values["hard/VD"] == (0.5, 2)
