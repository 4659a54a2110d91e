"""Video-MME: 2,700 multiple-choice questions about 900 videos of up to an hour (arXiv 2405.21075)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpost.benchmarks.benchmark import Benchmark, Rule
from mmpost.benchmarks.files import medium, rows
from mmpost.benchmarks.summaries import Mean
from mmpost.data.formats.temporal import SUFFIXES
from mmpost.errors import DataError
from mmpost.rewards.videomme import LETTERS, option_letter, videomme_letter
from mmpost.types import Part, Sample

INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)
"""The official one, without subtitles."""
GROUPS = ("duration", "domain", "sub_category", "task_type")


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows {"video_id", "duration", "domain", "sub_category", "videoID", "question_id", "task_type", "question",
    "options", "answer"}, by question_id; the videos are data/VIDEOID.mp4."""
    samples = []
    for row in rows(paths[0]):
        answer, options, video = row.text("answer"), row.texts("options"), row.text("videoID")
        if answer not in LETTERS:
            raise DataError(f"{row.where}: wanted a letter in 'answer', found {answer!r:.80}; use the official file")
        places = [f"{place}{video}{suffix}" for place in ("data/", "", "../data/") for suffix in SUFFIXES]
        lines = [INSTRUCTION, row.text("question"), *options, "The best answer is:"]
        prompt = (Part("video", medium(paths[0].parent, places, "video")), Part("text", "\n".join(lines)))
        meta = {
            "options": [option.partition(".")[2].strip() for option in options],
            "video": row.text("video_id"),
            "groups": list(dict.fromkeys(row.text(name) for name in GROUPS)),
        }
        samples.append(Sample(row.text("question_id"), prompt, truth=answer, meta=meta, where=row.where))
    return samples


def is_right(sample: Sample, letter: str | None) -> float:
    return float(letter == sample.truth)


BENCHMARK = Benchmark(
    files=("videomme/test-00000-of-00001.parquet",),
    rows=questions,
    official=Rule(lambda sample, text: videomme_letter(text), is_right, missing="left out", unread="left out"),
    strict=Rule(option_letter, is_right),
    summary=Mean(),
    paper="2405.21075",
    license="academic research only",
    source="the hub's lmms-lab/Video-MME; videos in data/",
    reading='the first capital of A to D, once "The answer is" and the like are cut out',
    metrics="accuracy, by duration, domain, sub-category and task",
    max_tokens=64,
    cluster=lambda sample: sample.meta["video"],
    quirks=(
        "replies without a capital of A to D are left out, so that silence may score more than an answer",
        '"Because" answers B: a letter counts inside a word, and the first one at that',
        'two beginnings are glued by a missing comma: "Best option: C" answers B',
    ),
)
