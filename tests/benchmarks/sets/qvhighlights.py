"""QVHighlights: a few queries in the form of its official file, a right reply to them, and its official script."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy

from mmpost.rewards.moments import submitted_windows
from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, texts

QUESTIONS = [
    {"qid": qid, "query": "A cat sleeps.", "duration": 150, "vid": vid, "relevant_windows": spans}
    for qid, vid, spans in [
        (2579, "a_0.0_150.0", [[82, 150]]),
        (5071, "a_0.0_150.0", [[0, 8], [20, 44], [60, 62]]),
        (9, "b_60.0_210.0", [[118, 136]]),
    ]
]
FILES = {"highlight_val_release.jsonl": "".join(json.dumps(row) + "\n" for row in QUESTIONS)}
REPOSITORY = "github.com/jayleicn/moment_detr"
NAMES = {
    "map": "MR-full-mAP",
    "map@0.5": "MR-full-mAP@0.5",
    "map@0.75": "MR-full-mAP@0.75",
    **{f"map/{name}": f"MR-{name}-mAP" for name in ("short", "middle", "long")},
    **{f"r1@{level}": f"MR-full-R1@{level}" for level in (0.5, 0.7)},
}
"""What the script calls the metrics."""


def gold(sample: Sample) -> str:
    return json.dumps([[*span, 0.9] for span in sample.truth["spans"]])


def script(checkout: Path) -> ModuleType:
    """The official script; scikit-learn, of which only highlights need something, may be missing."""
    sys.path.insert(0, str(checkout))
    sys.modules.setdefault("sklearn", ModuleType("sklearn"))
    metrics = sys.modules.setdefault("sklearn.metrics", ModuleType("sklearn.metrics"))
    metrics.__dict__.setdefault("precision_recall_curve", None)
    from standalone_eval import eval as module  # pyright: ignore[reportMissingImports]

    return module


def submission(truth: Mapping[str, Any], reply: str, qid: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows that the script reads. A reply without windows, at which it ends, is one of an empty window."""
    windows = submitted_windows(reply) or [(0, 0, 0)]
    return {"qid": qid, "pred_relevant_windows": [list(w) for w in windows]}, {
        "qid": qid,
        "relevant_windows": truth["spans"],
    }


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    precision = script(checkout).compute_average_precision_detection
    for _ in range(REPLIES):
        ends = sorted(rng.sample(range(0, 152, 2), 2 * rng.choice([1, 1, 1, 2, 3])))
        spans = [list(span) for span in zip(ends[::2], ends[1::2], strict=True)]
        reply, truth = written(spans, rng), {"spans": spans, "answer": None}
        said, true = submission(truth, reply, 0)
        windows = [{"video-id": 0, "t-start": s, "t-end": e, "score": p} for s, e, p in said["pred_relevant_windows"]]
        gold_spans = [{"video-id": 0, "t-start": s, "t-end": e} for s, e in true["relevant_windows"]]
        levels = [float(f"{level:.2f}") for level in numpy.linspace(0.5, 0.95, 10)]
        found = precision(gold_spans, windows[:10], tiou_thresholds=levels)
        yield {"truth": truth, "meta": {}, "reply": reply}, float(numpy.mean(found))


def metrics_officially(checkout: Path, rows: Sequence[Row]) -> dict[str, float]:
    said, true = zip(*(submission(row["truth"], row["reply"], i) for i, row in enumerate(rows)), strict=True)
    brief = script(checkout).eval_submission([*said], [*true], verbose=False)["brief"]
    return {name: brief[official] / 100 for name, official in NAMES.items()}


def written(spans: Sequence[Sequence[int]], rng: random.Random) -> str:
    """The windows or some near them, with scores or without, shuffled, inverted, doubled, in words."""
    spread = rng.choice([0, 0, 0, 2, 6, 40])
    windows = [[max(0, v + rng.randint(-spread, spread)) for v in span] for span in spans]
    windows += [[rng.randrange(150), rng.randrange(150)] for _ in range(rng.choice([0, 0, 0, 1, 3, 12]))]
    if rng.random() < 0.3:
        rng.shuffle(windows)
    if rng.random() < 0.1:
        start, end = spans[0]
        windows[0] = [end + end - start, end]
    if rng.random() < 0.1:
        windows.append(windows[0])
    scored = [[*window, rng.choice([0.5, round(rng.random(), 2)])] for window in windows]
    forms = [
        *(json.dumps(windows), json.dumps(windows), json.dumps(scored), json.dumps(scored), json.dumps(scored)),
        *("[]", json.dumps([windows[0], [1, 2, 3, 4]]), f"<answer>{windows}</answer>", f"{windows[0]}"),
        *(
            ", ".join(f"{s} - {e}" for s, e in windows),
            texts(json.dumps(windows), [json.dumps(scored), "[[0, 150]]"], rng),
        ),
    ]
    return rng.choice(forms)
