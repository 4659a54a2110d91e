"""GenEval: 553 prompts for pictures of objects, four pictures each, scored by a detector's boxes (arXiv 2310.11513).

The detector is not part of mmpost: predictions are the official script's results, with the colors beside them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from mmpost.benchmarks.benchmark import Benchmark, Metric, Numbers, Rule, Scored
from mmpost.benchmarks.files import Row, rows
from mmpost.benchmarks.summaries import ratio
from mmpost.errors import DataError
from mmpost.rewards.geneval import has_objects, read_detections, readable
from mmpost.types import Part, Sample

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
PICTURES = 4
"""Of each prompt."""
MIN_SCORES = {"counting": 0.9}
"""The score that boxes exceed to count, where it is not `MIN_SCORE`."""
MIN_SCORE = 0.3


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows {"tag", "prompt", "include", "exclude"}; the four pictures of the prompt in row N are N/0 to N/3."""
    samples = []
    for number, row in enumerate(rows(paths[0])):
        task, include = row.text("tag"), row.content.get("include")
        if task not in TASKS or not isinstance(include, list):
            raise DataError(
                f"{row.where}: wanted one of {', '.join(TASKS)} in 'tag' and a list in 'include', found {task!r:.40} "
                f"and {include!r:.40}; use the official file"
            )
        truth = {"include": include, "exclude": row.content.get("exclude") or []}
        meta = {"task": task, "prompt": number, "min_score": MIN_SCORES.get(task, MIN_SCORE)}
        prompt = (Part("text", row.text("prompt")),)
        samples += [Sample(f"{number:05}/{i}", prompt, (), truth, meta, where=row.where) for i in range(PICTURES)]
    return samples


def row_id(row: Mapping[str, Any]) -> str:
    """`FOLDER/00012/samples/00003.png` is the picture 00012/3."""
    path = PurePath(str(row.get("filename")))
    folder, picture = path.parent.parent.name, path.stem
    return f"{int(folder):05}/{int(picture)}" if folder.isdecimal() and picture.isdecimal() else str(path)


def row_reply(row: Row) -> str:
    """The official `details`, {class: [[x0, y0, x1, y1, score], ...]} as JSON or its text, with the colors of `colors`,
    {class: [color, ...]} in the same order: where it is shorter, the rest have none."""
    details, colors = row.content.get("details"), row.content.get("colors")
    text = details if isinstance(details, str) else json.dumps(details)
    if read_detections(text) is None:
        raise DataError(f"{row.where}: wanted boxes by class in 'details', found {text:.80}; write them as the script")
    if not isinstance(colors, Mapping) or not all(isinstance(each, list) for each in colors.values()):
        raise DataError(
            f"{row.where}: wanted lists of colors by class in 'colors', found {colors!r:.80}; keep those that the "
            "script's color_classification returns, {} where there are none"
        )
    boxes = {
        name: [[*box[:5], *colors.get(name, [])[i : i + 1]] for i, box in enumerate(found)]
        for name, found in json.loads(text).items()
    }
    return json.dumps(boxes)


class Tasks:
    """The unweighted mean of the tasks' accuracies, the accuracy of each, and the share of prompts with a right picture
    ("prompts"). A cluster is what belongs to one prompt."""

    def count(self, cluster: Sequence[Scored]) -> Mapping[str, float]:
        task, right = cluster[0].sample.meta["task"], sum(each.score for each in cluster)
        return {f"right/{task}": right, f"n/{task}": len(cluster), "prompts": float(right > 0), "n": 1}

    def metrics(self, sums: Mapping[str, Numbers]) -> dict[str, Metric]:
        tasks = {
            task: Metric(ratio(sums[f"right/{task}"], sums[f"n/{task}"]), sums[f"n/{task}"], is_share=True)
            for task in TASKS
            if f"n/{task}" in sums
        }
        n, prompts = np.array([task.n for task in tasks.values()]), ratio(sums["prompts"], sums["n"])
        total = np.where(n > 0, [task.value for task in tasks.values()], 0.0).sum(axis=0)
        overall = Metric(ratio(total, (n > 0).sum(axis=0)), n.sum(axis=0))
        return {"overall": overall, **tasks, "prompts": Metric(prompts, sums["n"], is_share=True)}


BENCHMARK = Benchmark(
    files=("evaluation_metadata.jsonl",),
    rows=questions,
    official=Rule(readable, has_objects, missing="left out"),
    strict=Rule(readable, has_objects),
    summary=Tasks(),
    paper="2310.11513",
    license="MIT",
    source="https://github.com/djghosh13/geneval (prompts/evaluation_metadata.jsonl)",
    reading=(
        "the boxes of a detector: the rows of the official results, `filename` and `details`, with the colors of "
        'each class\'s boxes in `colors`, which the script does not write (`{"cow": ["red"]}`, {} where none is '
        "asked for). No detector is part of mmpost, and no model writes such replies: `mmpost score` only"
    ),
    metrics=(
        "overall, the unweighted mean of the six tasks; accuracy of each, over pictures; share of prompts with a "
        "right picture"
    ),
    hashes={"5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13": "release of af4902f"},
    cluster=lambda sample: f"{sample.meta['prompt']}",
    row_id=row_id,
    row_reply=row_reply,
    quirks=(
        "pictures without a prediction are left out, so that one picture a prompt counts as much as four",
        "more objects than asked for are right, except in counting, where boxes need a score above 0.9 and not 0.3",
        "only the objects with the highest scores are looked at: a red apple beside a likelier green one is wrong",
        "on the diagonal an object is both beside and above: either relation is right",
    ),
)
