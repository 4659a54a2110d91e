"""Video-MME: every quirk of the official rule."""

from __future__ import annotations

import pytest

from mmpost.benchmarks.benchmark import benchmark
from mmpost.benchmarks.scoring import evaluate
from mmpost.rewards.videomme import videomme_letter
from mmpost.types import Sample
from tests.benchmarks.by_rule import strict

OPTIONS = {"options": ["Apples.", "Candles.", "Berries.", "The three kinds are of the same number."]}


@pytest.mark.parametrize(
    ("text", "by_script", "strictly"),
    [
        ("C", "C", 1),
        ("C. Berries.", "C", 1),
        ("The best answer is: C", "C", 1),
        ("Because of the red ones, C", "B", 0),
        ("Best answer: C", "B", 1),
        ("Best option: C", "B", 0),
        ("Best answer:Best option: C", "C", 0),
        ("berries", None, 1),
        ("Berries", "B", 1),
        ("<think>A?</think><answer>C</answer>", "A", 1),
        ("I cannot say", None, 0),
        ("", None, 0),
    ],
)
def test_quirks_of_videomme(text: str, by_script: str | None, strictly: float) -> None:
    assert videomme_letter(text) == by_script
    assert strict("videomme", "C", text, **OPTIONS) == strictly


def test_replies_without_a_letter_are_left_out_officially() -> None:
    meta = {**OPTIONS, "groups": ["short"], "video": "v"}
    samples = [Sample(str(i), (), truth="C", meta=meta) for i in range(4)]
    found = evaluate(benchmark("videomme"), samples, {"0": "C", "1": "no idea", "2": ""}, "videomme")
    assert found.official["accuracy"] == {"value": 1, "n": 1, "low": pytest.approx(0.2065, abs=1e-3), "high": 1}
    assert (found.strict["accuracy"]["value"], found.strict["accuracy"]["n"]) == (0.25, 4)
    assert [found.scores[uid][0] for uid in "0123"] == [1, None, None, None]
    assert found.differing == []
