"""A few questions of each benchmark in the form of its official files, and what a right reply to them looks like."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pyarrow import Table, parquet

from mmpost.tasks.benches.mmmu import SUBJECTS
from mmpost.types import Sample


class Small(NamedTuple):
    """Official files by name, as texts or as rows of Parquet, and the gold reply to a sample."""

    files: dict[str, str | list[dict[str, Any]]]
    gold: Callable[[Sample], str]


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _pope(split: str) -> str:
    rows = [("yes", 1), ("no", 1), ("yes", 2), ("no", 2)]
    return _lines(
        [
            {"question_id": i, "image": f"{split}{picture}.jpg", "text": "Is there a dog in the image?", "label": label}
            for i, (label, picture) in enumerate(rows, 1)
        ]
    )


MMAU = [
    {
        "id": str(i),
        "audio_id": f"./test-mini-audios/{i}.wav",
        "question": "Who speaks?",
        "choices": ["A man", "A woman", "A child"],
        "answer": answer,
        "task": task,
        "difficulty": "easy",
        "sub-category": "Counting",
        "category": "Reasoning",
    }
    for i, (answer, task) in enumerate(
        [("A man", "sound"), ("A woman", "sound"), ("A child", "music"), ("A man", "speech")]
    )
]

MATHVISTA = {
    str(pid): {
        "question": "How many?",
        "image": f"images/{pid}.jpg",
        "choices": choices,
        "unit": None,
        "precision": precision,
        "answer": answer,
        "question_type": "free_form" if choices is None else "multi_choice",
        "answer_type": kind,
        "pid": str(pid),
        "metadata": {"task": "math word problem", "skills": ["arithmetic reasoning"]},
    }
    for pid, (answer, kind, precision, choices) in enumerate(
        [
            ("145°", "text", None, ["135°", "145°"]),
            ("14", "integer", None, None),
            ("1.2", "float", 1, None),
            ("[2014, 2016]", "list", None, None),
        ],
        1,
    )
}


def _mmmu(subject: str, number: int) -> list[dict[str, Any]]:
    choice = {"question": "What is <image 1>?", "options": "['a dog', 'a cat']", "answer": "B"}
    free = {"question": "How many?", "options": "[]", "answer": ["3.5", "['1,000', '1000 m']"][number % 2]}
    kind = {"question_type": "open"} if number % 3 == 0 else {"question_type": "multiple-choice"}
    row = (free if number % 3 == 0 else choice) | kind | {"id": f"validation_{subject}_1"}
    return [row | {f"image_{i}": {"bytes": b"png", "path": "1.png"} if i == 1 else None for i in range(1, 8)}]


def _mmmu_gold(sample: Sample) -> str:
    return f"({sample.truth})" if sample.meta["options"] is not None else sample.truth[0]


OCRBENCH = [
    {
        "dataset_name": source,
        "id": 7,
        "image_path": f"{source}/7.png",
        "question": "?",
        "answers": answers,
        "type": kind,
    }
    for source, answers, kind in [
        ("IIIT5K", "CENTRE", "Regular Text Recognition"),
        ("docVQA", ["15", "fifteen"], "Doc-oriented VQA"),
        ("HME100k", ["y _ { 2 } = - 1\n"], "Handwritten Mathematical Expression Recognition"),
    ]
]
MMSTAR = [
    {
        "index": i,
        "question": "What is it? Options: A: a dog, B: a cat, C: a cow, D: a pig",
        "image": b"png",
        "answer": answer,
        "category": "math",
        "l2_category": "geometry",
    }
    for i, answer in enumerate("ADB")
]

SMALL: dict[str, Small] = {
    "mmstar": Small({"mmstar.parquet": MMSTAR}, lambda sample: str(sample.truth)),
    "ocrbench": Small({"OCRBench.json": json.dumps(OCRBENCH)}, lambda sample: str(sample.truth[0])),
    "mmmu": Small(
        {f"{subject}/validation-00000-of-00001.parquet": _mmmu(subject, i) for i, subject in enumerate(SUBJECTS)},
        _mmmu_gold,
    ),
    "mathvista": Small({"testmini.json": json.dumps(MATHVISTA)}, lambda sample: str(sample.truth)),
    "pope": Small(
        {f"coco_pope_{split}.json": _pope(split) for split in ("random", "popular", "adversarial")},
        lambda sample: str(sample.truth),
    ),
    "mmau": Small({"mmau-test-mini.json": json.dumps(MMAU)}, lambda sample: str(sample.truth)),
}


def write_questions(name: str, folder: Path) -> None:
    """Write the official files of a benchmark."""
    folder.mkdir(parents=True)
    for file, content in SMALL[name].files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        if isinstance(content, str):
            (folder / file).write_text(content)
        else:
            parquet.write_table(Table.from_pylist(content), folder / file)
