"""QVHighlights: every quirk of the official rule, closed forms of its metrics, files of submissions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmpost.benchmarks.benchmark import Scored, benchmark
from mmpost.benchmarks.estimates import estimates
from mmpost.commands.score import score
from mmpost.rewards.moments import LEVELS, Window, average_precisions, first_overlap, named_windows, submitted_windows
from mmpost.types import Sample
from tests.benchmarks.by_rule import official, strict
from tests.benchmarks.small_benches import write_questions

ONE = {"spans": [[10, 20]], "answer": None}
TWO = {"spans": [[10, 20], [50, 60]], "answer": None}


def test_average_precision_is_the_area_under_the_envelope() -> None:
    assert official("qvhighlights", ONE, "[[10, 20]]") == 1
    assert official("qvhighlights", TWO, "[[10, 20]]") == 0.5
    assert official("qvhighlights", ONE, "[[30, 40], [10, 20]]") == 0.5
    assert official("qvhighlights", ONE, "[[30, 40, 0.1], [10, 20, 0.9]]") == 1
    assert official("qvhighlights", TWO, "[[10, 20], [30, 40], [50, 60]]") == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert official("qvhighlights", ONE, "[[10, 20], [10, 20]]") == 1
    assert official("qvhighlights", ONE, "[[10, 17]]") == pytest.approx(sum(level <= 0.7 for level in LEVELS) / 10)
    assert official("qvhighlights", ONE, json.dumps([[100, 110]] * 10 + [[10, 20]])) == 0


def test_an_inverted_window_as_long_as_the_truth_is_a_hit() -> None:
    assert (official("qvhighlights", ONE, "[[40, 30]]"), strict("qvhighlights", ONE, "[[40, 30]]")) == (1, 0)
    assert official("qvhighlights", ONE, "[[40, 31]]") == 0


def test_what_is_no_list_of_windows_is_read_only_strictly() -> None:
    for text in ("10 - 20", "<answer>[[10, 20]]</answer>", "From 10 to 20 seconds.", "[10, 20]"):
        assert (official("qvhighlights", ONE, text), strict("qvhighlights", ONE, text)) == (0, 1)
    assert (official("qvhighlights", ONE, ""), strict("qvhighlights", ONE, "")) == (0, 0)
    assert named_windows("0:10 - 0:20, 50 to 60 s") == [Window(10, 20, 0), Window(50, 60, -1)]
    assert named_windows("[[1, 2, 0.1], [3, 4, 0.9]]") == [Window(3, 4, 0.9), Window(1, 2, 0.1)]
    assert submitted_windows("[[1, 2], [3, NaN]]") is None


def test_recall_is_that_of_the_first_window_whatever_its_score() -> None:
    windows = submitted_windows("[[30, 40, 0.1], [10, 20, 0.9]]")
    assert windows is not None
    assert first_overlap(windows, ONE["spans"]) == 0
    assert average_precisions(windows, ONE["spans"]).mean() == 1


def test_moments_of_each_length_are_scored_alone() -> None:
    truth = {"spans": [[0, 8], [20, 44]], "answer": None}
    windows = submitted_windows("[[0, 8], [20, 44]]")
    found = estimates(benchmark("qvhighlights").summary, [[Scored(Sample("s", (), truth=truth), "", windows, 1.0)]])
    values = {name: estimate["value"] for name, estimate in found.items()}
    assert values == {
        **dict.fromkeys(("map", "map@0.5", "map@0.75", "r1@0.5", "r1@0.7"), 1),
        **{"map/short": 1, "map/middle": 0.5},
    }


def test_files_of_submissions(tmp_path: Path) -> None:
    write_questions("qvhighlights", tmp_path / "qvhighlights")
    bench = benchmark("qvhighlights")
    samples = list(bench.rows(bench.paths(tmp_path, "qvhighlights")))
    rows = [{"qid": int(s.uid), "pred_relevant_windows": [[*span, 1.0] for span in s.truth["spans"]]} for s in samples]
    file = tmp_path / "hl_val_submission.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["bench=qvhighlights", f"predictions={file}", f"data.benches={tmp_path}"]
    result = score([*arguments, "key=pred_relevant_windows"])
    assert result["official"]["map"]["value"] == result["strict"]["map"]["value"] == 1
