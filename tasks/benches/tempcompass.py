"""TempCompass: what happens when, how fast and in which direction, in three of its four tasks (arXiv 2403.00476).

The fourth, captioning, is scored by a language model alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmpost.benchmarks.benchmark import Benchmark, Rule
from mmpost.benchmarks.files import Row, medium, rows
from mmpost.benchmarks.summaries import Mean
from mmpost.errors import DataError
from mmpost.rewards.tempcompass import (
    tempcompass_reading,
    tempcompass_score,
    tempcompass_strict_reading,
    tempcompass_strict_score,
)
from mmpost.types import Part, Sample

INSTRUCTIONS = {
    "multi-choice": "\nPlease directly give the best option:",
    "yes_no": "\nPlease answer yes or no:",
    "caption_matching": "\nPlease directly give the best option:",
}
"""The official ones, by task."""


def questions(paths: Sequence[Path]) -> list[Sample]:
    """By video and aspect of time, rows {"question", "answer"}; the videos are videos/VIDEO.mp4.

    Questions are named TASK/VIDEO/ASPECT/NUMBER. Their finer aspects are in meta_info.json.
    """
    *files, described = paths
    finer = {row.key: row.content.get("eval_dim") for row in rows(described)}
    samples = []
    for task, path in zip(INSTRUCTIONS, files, strict=True):
        for row in rows(path):
            video = medium(path.parent, (f"videos/{row.key}.mp4", f"{row.key}.mp4"), "video")
            for aspect, number, asked in _asked(row):
                text, answer = asked.text("question"), asked.text("answer")
                options = ["yes", "no"] if task == "yes_no" else text.split("\n")[1:]
                if answer not in options:
                    raise DataError(f"{asked.where}: wanted one of {options} in 'answer', found {answer!r:.80}")
                fine = ((finer.get(row.key) or {}).get(aspect) or {}).get("type", aspect)
                groups = list(dict.fromkeys([task, f"{task}/{aspect}", f"{task}/{fine}"]))
                meta = {"task": task, "options": options, "video": row.key, "groups": groups}
                prompt = (Part("video", video), Part("text", text + INSTRUCTIONS[task]))
                uid = f"{task}/{row.key}/{aspect}/{number}"
                samples.append(Sample(uid, prompt, truth=answer, meta=meta, where=asked.where))
    return samples


def _asked(row: Row) -> Iterator[tuple[str, int, Row]]:
    for aspect, asked in row.content.items():
        if not isinstance(asked, list) or not all(isinstance(question, Mapping) for question in asked):
            raise DataError(f"{row.where}: wanted questions in {aspect!r}, found {asked!r:.80}; use the official file")
        for number, question in enumerate(asked, 1):
            yield aspect, number, Row(f"{row.where}, {aspect} {number}", "", question)


BENCHMARK = Benchmark(
    files=(*(f"{task}.json" for task in INSTRUCTIONS), "meta_info.json"),
    rows=questions,
    official=Rule(tempcompass_reading, tempcompass_score),
    strict=Rule(tempcompass_strict_reading, tempcompass_strict_score),
    summary=Mean(),
    paper="2403.00476",
    license="CC BY-NC 4.0",
    source="https://github.com/llyx97/TempCompass (questions/, meta_info.json); videos in videos/",
    reading="the beginning of the reply; an option with its label or without",
    metrics="accuracy, by task, aspect and finer aspect",
    hashes={"badce21fc34c000acf283238a1e975434fe59904156387e63a1bf74ff691e0ea": "release of e1b4631"},
    max_tokens=128,
    cluster=lambda sample: sample.meta["video"],
    quirks=(
        "a reply that the rules cannot read is asked about to a language model, and is wrong without it, as with the "
        "script's --disable_llm: (A), Answer: A and an option's text alone",
        '"A. ..." answers A whatever follows; "Nothing" and "Now" answer no',
        "captions that have a colon and a blank are cut off there",
    ),
)
