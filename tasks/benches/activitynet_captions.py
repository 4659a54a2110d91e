"""ActivityNet Captions: the moment of a video that a sentence describes, in the split val_2 (arXiv 1705.00754)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mmpost.data.formats.temporal_files import activitynet
from mmpost.errors import DataError
from mmpost.tasks.benches import charades_sta
from mmpost.types import Sample


def questions(paths: Sequence[Path]) -> list[Sample]:
    """By video {"duration", "timestamps", "sentences"}, each sentence named VIDEO#NUMBER; videos are beside the file or
    in videos/."""
    rows = activitynet(paths[0])
    if rows is None:
        raise DataError(f"{paths[0].name}: wanted an object of videos, found a list; use the official file")
    return charades_sta.moments(rows, paths[0].parent, "videos")


BENCHMARK = replace(
    charades_sta.BENCHMARK,
    files=("val_2.json",),
    rows=questions,
    paper="1705.00754",
    license="not stated (annotations); videos of YouTube",
    source="https://cs.stanford.edu/people/ranjaykrishna/densevid (captions.zip); videos in videos/",
    reading=(
        "two numbers with a hyphen between them, or the first numbers of two sentences that say start, end or happen"
    ),
    metrics="mean IoU; recall (R@1) at IoUs of 0.3, 0.5 and 0.7",
)
