"""Charades-STA: every quirk of the official rule, the examples of IoU, closed forms of its metrics."""

from __future__ import annotations

import pytest

from mmpost.benchmarks.benchmark import Scored, benchmark
from mmpost.benchmarks.estimates import estimates
from mmpost.rewards.moments import named_span, timechat_span
from mmpost.types import Sample
from tests.benchmarks.by_rule import official, strict

TRUTH = {"spans": [[10, 20]], "answer": None}


@pytest.mark.parametrize(
    ("text", "by_script", "strictly"),
    [
        ("10 - 20", 1, 1),
        ("It happens in 10.0 - 20.0 seconds.", 1, 1),
        ("20 - 10", 1, 0),
        ("In 2012-2013, from 10 - 20", 0, 0),
        ("10 to 20 s", 0, 1),
        ("It starts at 10 s and ends at 20 s", 0, 1),
        ("Start: 10\nEnd: 20", 1, 1),
        ("00:00:10 - 00:00:20", 0, 1),
        ("0:10 to 0:20", 0, 1),
        ('<think>2 - 4</think><answer>{"start_time": "10.0", "end_time": "20.0"}</answer>', 0, 1),
        ("[10, 20]", 0, 1),
        ("10 - 20 or 30 - 40", 1, 0),
        ("5 - 15", 1 / 3, 1 / 3),
        ("12 - 14", 0.2, 0.2),
        ("0 - 40", 0.25, 0.25),
        ("30 - 40", 0, 0),
        ("15 - 15", 0, 0),
        ("", 0, 0),
    ],
)
def test_quirks_of_charades_sta(text: str, by_script: float, strictly: float) -> None:
    assert official("charades_sta", TRUTH, text) == pytest.approx(by_script)
    assert strict("charades_sta", TRUTH, text) == pytest.approx(strictly)


def test_sentences_of_the_script_end_with_lines_and_marks() -> None:
    assert timechat_span("Start: 3. End: 7.") is None
    assert timechat_span("Start: 3? End: 7") == (3, 7)
    assert timechat_span("start 3.5x\nend 7") == (3, 7)
    assert timechat_span("1.2.3 - 4") == (2.3, 4)
    assert timechat_span("1..2 - 4") is None
    assert named_span("from 3 to 4\nso it is 5 to 6") == (5, 6)


def test_metrics_of_charades_sta() -> None:
    ious = [1.0, 0.7, 0.5, 0.3, 0.0]
    scored = [[Scored(Sample(str(i), ()), "", None, iou)] for i, iou in enumerate(ious)]
    found = estimates(benchmark("charades_sta").summary, scored)
    assert {name: estimate["value"] for name, estimate in found.items()} == pytest.approx(
        {"miou": 0.5, "r1@0.3": 0.8, "r1@0.5": 0.6, "r1@0.7": 0.4}
    )


@pytest.mark.parametrize("piece", ["1", "1.", "1 ", "- ", "start", "1-", "start 1 ", ":", "[1,"])
def test_long_replies_are_read_at_once(piece: str) -> None:
    text = piece * (100_000 // len(piece)) + "x"
    read = timechat_span(text)
    assert read is None or read[0] <= read[1]
    named = named_span(text)
    assert named is None or len(named) == 2
