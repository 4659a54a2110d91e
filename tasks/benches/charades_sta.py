"""Charades-STA: the moment of a video that a sentence describes, 3,720 sentences of its test (arXiv 1705.02101)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpost.benchmarks.benchmark import Benchmark, Rule
from mmpost.benchmarks.files import medium
from mmpost.benchmarks.summaries import Overlaps
from mmpost.data.formats.temporal import SUFFIXES
from mmpost.data.formats.temporal_files import charades
from mmpost.rewards.moments import named_span, span_score, timechat_span
from mmpost.types import Part, Sample

PROMPT = (
    "When does this happen in the video? {sentence}\n"
    "Answer with the start and the end in seconds, as in: It happens in 20.8 - 30.0 seconds."
)


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Lines `VIDEO START END##SENTENCE`, named VIDEO#LINE; videos are beside the file or in Charades_v1_480/.

    Durations are those of Charades_v1_test.csv, where it is there.
    """
    return moments(charades(paths[0]), paths[0].parent, "Charades_v1_480")


def moments(rows: Iterable[Mapping[str, Any]], folder: Path, videos: str) -> list[Sample]:
    """Samples of rows with `id`, `video`, `problem`, `solution` and perhaps `video_length`; videos are in `folder`
    or in the folder `videos` of it."""
    samples = []
    for row in rows:
        names = [f"{place}{row['video']}{suffix}" for place in ("", f"{videos}/") for suffix in SUFFIXES]
        duration = {} if row["video_length"] is None else {"duration": float(row["video_length"])}
        truth = {"spans": row["solution"]["spans"], "answer": None, **duration}
        text = Part("text", PROMPT.format(sentence=row["problem"]))
        prompt = (Part("video", medium(folder, names, "video")), text)
        samples.append(Sample(row["id"], prompt, truth=truth, meta={"video": row["video"]}, where=row["id"]))
    return samples


BENCHMARK = Benchmark(
    files=("charades_sta_test.txt",),
    rows=questions,
    official=Rule(lambda sample, text: timechat_span(text), span_score),
    strict=Rule(lambda sample, text: named_span(text), span_score),
    summary=Overlaps(),
    paper="1705.02101",
    license="non-commercial (that of Charades)",
    source="https://github.com/jiyanggao/TALL (charades_sta_test.txt); videos in Charades_v1_480/",
    reading=(
        "two numbers with a hyphen between them, or the first numbers of two sentences that say start, end or happen"
    ),
    metrics="mean IoU; recall (R@1) at IoUs of 0.3, 0.5 and 0.7",
    max_tokens=128,
    cluster=lambda sample: sample.meta["video"],
    quirks=(
        "the benchmark has no script for written replies: the rule is that of TimeChat, which swaps inverted ends",
        "the first two numbers with a hyphen between them count, wherever they are: a date, a score",
        '"starts at 3 s and ends at 7 s" is no span, but one number; 00:12 - 00:15 is 0 to 12 seconds',
    ),
)
