"""Charades-STA: a few lines in the form of its official file, a right reply to them, and the script of TimeChat."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, functions, texts

LINES = ["3MSZA 24.3 30.4##person turn a light on.", "3MSZA 0.0 12##person sits.", "AA2RG 1.5 9.25##he eats."]
FILES = {"charades_sta_test.txt": "\n".join(LINES)}
REPOSITORY = "github.com/RenShuhuai-Andy/TimeChat"


def gold(sample: Sample) -> str:
    start, end = sample.truth["spans"][0]
    return f"{start} - {end}"


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    (extract,) = functions(checkout / "utils" / "format_tvg.py", ["extract_time"], re=re)
    (overlap,) = functions(checkout / "metrics" / "tvg" / "eval_tvg.py", ["iou"])
    count = 0
    while count < REPLIES:
        start = round(rng.uniform(0, 25), 1)
        truth = [start, round(start + rng.uniform(1, 9), 1)]
        reply = written(truth, rng)
        try:
            spans = extract(reply)
        except ValueError:  # of a number with two full stops; nobody has a score for that
            continue
        score = overlap(truth, spans[0]) if spans else 0.0
        count += 1
        yield {"truth": {"spans": [truth], "answer": None}, "meta": {}, "reply": reply}, float(score)


def written(truth: list[float], rng: random.Random) -> str:
    """The span or one near it, in some notation, among other words and numbers."""
    spread = rng.choice([0, 0, 0, 0, 0, 0.5, 3, 20])
    start, end = (max(0.0, round(v + rng.uniform(-spread, spread), 1)) for v in truth)
    a, b = (rng.choice([f"{v:g}", f"{v:.1f}", f"{v:.1f}", f"{v:.1f}s", f"{v:.0f}."]) for v in (start, end))
    clock = [f"00:{int(v) // 60:02}:{int(v) % 60:02}" for v in (start, end)]
    dash = rng.choice(["-", " - ", " -", "\n-\n", " \u2013 ", " to ", ", "])
    forms = [
        *(f"{a}{dash}{b}", f"The given query happens in {a} - {b} seconds.", f"{b} - {a}", f"{a}-{b}-{a}"),
        *(f"It starts at {a} and ends at {b}.", f"Start: {a}\nEnd: {b}", f"start time {a}!\nend time {b}\nend 3"),
        *(f"Start: {a}\nIt has 3 dogs\nEnd: {b}", f"In 2012-2013, {a} - {b}", f"start {a}? 2.5x? end {b}? happens 4"),
        *(
            f"{clock[0]} - {clock[1]}",
            f"starts at {clock[0]}\nends at {clock[1]}",
            f"starts {clock[0]} ends {clock[1]}",
        ),
        *(f"starts at 18s\nends at {b}", f"end {b}\nstart {a}", f"[{a}, {b}]", f"<answer>{a} - {b}</answer>"),
        *(f"{a}-{b} or 3-4", f"3-4 or {a}-{b}", f"-{a} - -{b}", f"{a} - {a}", f"1.2.{a} - {b}", "no start, no end"),
        texts(f"{a} - {b}", ["0 - 30", "start 0\nend 30", "7", "nothing happens"], rng),
    ]
    return rng.choice(forms)
