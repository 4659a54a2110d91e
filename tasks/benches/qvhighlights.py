"""QVHighlights: all moments of a video that a query describes, the most certain first (arXiv 2107.09609)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmpost.benchmarks.benchmark import Benchmark, Metric, Numbers, Rule, Scored
from mmpost.benchmarks.files import Row, medium, rows
from mmpost.benchmarks.summaries import averages
from mmpost.errors import DataError
from mmpost.rewards.moments import (
    LEVELS,
    average_precisions,
    first_overlap,
    named_windows,
    submitted_windows,
    windows_score,
)
from mmpost.types import Part, Sample

PROMPT = (
    "Find all moments of the video that match this query: {query}\n"
    "Answer with a list of their starts and ends in seconds, the most certain first, as in: [[12, 20], [48, 96]]"
)
RANGES = {"short": (0, 10), "middle": (10, 30), "long": (30, 150)}
"""Lengths of moments in seconds, without the lower bound."""


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows {"qid", "query", "duration", "vid", "relevant_windows"}; videos are beside the file or in videos/."""
    samples = []
    for row in rows(paths[0]):
        vid = row.text("vid")
        video = medium(paths[0].parent, (f"{vid}.mp4", f"videos/{vid}.mp4"), "video")
        truth = {"spans": _spans(row), "answer": None, "duration": row.content.get("duration")}
        prompt = (Part("video", video), Part("text", PROMPT.format(query=row.text("query"))))
        uid = str(row.content.get("qid"))
        samples.append(Sample(uid, prompt, truth=truth, meta={"video": vid}, where=row.where))
    return samples


def _spans(row: Row) -> list[list[float]]:
    spans = row.content.get("relevant_windows")
    if not isinstance(spans, list) or not spans or not all(isinstance(s, list) and len(s) == 2 for s in spans):
        raise DataError(
            f"{row.where}: wanted 'relevant_windows', found {spans!r:.80}; use a file with the truth, such as "
            "highlight_val_release.jsonl"
        )
    return spans


class Moments:
    """Mean average precision over IoUs of 0.5 to 0.95, at two of them, and for moments of each length; recall of the
    first moment."""

    def count(self, cluster: Sequence[Scored]) -> Mapping[str, float]:
        sums: dict[str, float] = {}
        for sample, _, reading, _ in cluster:
            windows, spans = reading or (), sample.truth["spans"]
            precisions = average_precisions(windows, spans)
            overlap = first_overlap(windows, spans)
            values = {"map": float(np.mean(precisions))}
            values |= {f"map@{level}": float(precisions[LEVELS.index(level)]) for level in (0.5, 0.75)}
            values |= {f"r1@{level}": float(overlap >= level) for level in (0.5, 0.7)}
            for name, (low, high) in RANGES.items():
                some = [span for span in spans if low < span[1] - span[0] <= high]
                if some:
                    values[f"map/{name}"] = float(np.mean(average_precisions(windows, some)))
            for name, value in values.items():
                sums[f"score/{name}"] = sums.get(f"score/{name}", 0.0) + value
                sums[f"n/{name}"] = sums.get(f"n/{name}", 0.0) + 1
        return sums

    def metrics(self, sums: Mapping[str, Numbers]) -> dict[str, Metric]:
        return averages(sums, binary=lambda name: name.startswith("r1"))


BENCHMARK = Benchmark(
    files=("highlight_val_release.jsonl",),
    rows=questions,
    official=Rule(lambda sample, text: submitted_windows(text), windows_score),
    strict=Rule(lambda sample, text: named_windows(text), windows_score),
    summary=Moments(),
    paper="2107.09609",
    license="CC BY-NC-SA 4.0",
    source="https://github.com/jayleicn/moment_detr (data/highlight_val_release.jsonl); videos in videos/",
    reading="a JSON list of windows, with scores or in order; `key=pred_relevant_windows id=qid` reads submissions",
    metrics=(
        "mAP over IoUs of 0.5 to 0.95, at 0.5 and 0.75, for short, middle and long moments; recall of the first window"
    ),
    hashes={"f668a1eaea156ec5315e14718999cea043a8cf948d3cafbd8e8d655318c3cd02": "release of b7e553a"},
    max_tokens=256,
    cluster=lambda sample: sample.meta["video"],
    quirks=(
        "a reply is a JSON list of windows with their scores, or without, in order; at any other the script ends, and "
        "here it is wrong",
        "recall is that of the first window in the list, whatever its score",
        "an inverted window as long as a true one, and apart from it, hits it at every IoU, for 0 / 0 is not below one",
        "in each range of lengths, windows that hit moments of other lengths are false",
    ),
)
