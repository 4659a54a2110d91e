"""ChartQA: a few questions in the form of its official files, a right reply to them, and its official rule."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, functions, texts

LABELS = {"human": ["14", "2010", "[Yes, No]"], "augmented": ["0.57", "62%", "Strongly agree"]}

FILES = {
    f"test_{split}.json": json.dumps(
        [{"imgname": f"{i // 2}.png", "query": "How many?", "label": label} for i, label in enumerate(labels)]
    )
    for split, labels in LABELS.items()
}
REPOSITORY = "github.com/google-research/pix2struct"
"""ChartQA's own repository has no script for its metric."""

TRUTHS = ["14", "2010", "0.57", "62%", "-3.5", "0", "1,000", "1000", "100", "Yes", "dark blue", "Strongly agree"]
FORMS = ["{:g}", "{:.2f}", "{:g}%", "${:g}", "{:,.1f}", " {:g}\n", "{:e}", "{:g} %", "{:_.0f}", "{:g}%%", "about {:g}"]


def gold(sample: Sample) -> str:
    return str(sample.truth)


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    file = checkout / "pix2struct" / "metrics.py"
    (correct,) = functions(file, ["relaxed_correctness"], Optional=Optional)
    for _ in range(REPLIES):
        truth = rng.choice(TRUTHS)
        reply = texts(truth, rng.sample(TRUTHS, 2), rng)
        try:
            number = float(truth.rstrip("%").replace(",", ""))
        except ValueError:
            number = float("nan")
        if rng.random() < 0.6 and number == number:
            factor = rng.choice([1, 0.95, 1.05, 0.949, 1.051, rng.uniform(0.9, 1.1), 0.01, 100])
            reply = rng.choice(FORMS).format(number * factor)
        yield {"truth": truth, "meta": {}, "reply": reply}, float(correct(truth, reply))
