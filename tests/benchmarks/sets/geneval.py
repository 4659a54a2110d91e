"""GenEval: a few prompts in the form of its official file, right detections for them, and its official script."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, functions

QUESTIONS = [
    {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a photo of a dog"},
    {
        "tag": "counting",
        "include": [{"class": "cup", "count": 2}],
        "exclude": [{"class": "cup", "count": 3}],
        "prompt": "a photo of two cups",
    },
    {"tag": "colors", "include": [{"class": "cow", "count": 1, "color": "red"}], "prompt": "a photo of a red cow"},
    {
        "tag": "position",
        "include": [{"class": "cup", "count": 1}, {"class": "cow", "count": 1, "position": ["below", 0]}],
        "prompt": "a photo of a cow below a cup",
    },
]

FILES = {"evaluation_metadata.jsonl": "".join(json.dumps(question) + "\n" for question in QUESTIONS)}
REPOSITORY = "github.com/djghosh13/geneval"
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
STEPS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}


def gold(sample: Sample) -> str:
    found = {}
    for wanted in sample.truth["include"]:
        dx, dy = STEPS[wanted["position"][0]] if "position" in wanted else (0, 0)
        box = [100 + 90 * dx, 100 + 90 * dy, 140 + 90 * dx, 140 + 90 * dy, 0.95]
        found[wanted["class"]] = [[*box, wanted.get("color")]] * wanted["count"]
    return json.dumps(found)


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    rows = [json.loads(line) for line in (checkout / "prompts" / "evaluation_metadata.jsonl").open()]
    names = [line.strip() for line in (checkout / "evaluation" / "object_names.txt").open()]
    colors: dict[np.float32, str] = {}
    arrays: list[Any] = []
    namespace = {
        **{"np": np, "json": json, "Image": Pictures, "ImageOps": Pictures, "classnames": names},
        **{"object_detector": None, "inference_detector": lambda _, __: arrays},
        **{"THRESHOLD": 0.3, "COUNTING_THRESHOLD": 0.9, "MAX_OBJECTS": 16, "NMS_THRESHOLD": 1.0},
        **{"POSITION_THRESHOLD": 0.1, "COLORS": COLORS},
        "color_classification": lambda _, objects, __: [colors[box[4]] for box, _ in objects],
    }
    wanted = ["relative_position", "evaluate", "evaluate_image"]
    *_, evaluate_image = functions(checkout / "evaluation" / "evaluate_images.py", wanted, **namespace)
    for _ in range(REPLIES):
        row = rng.choice(rows)
        found = detections(row, rng)
        arrays[:] = [np.array([box[:5] for box in found.get(name, [])], np.float32).reshape(-1, 5) for name in names]
        colors.clear()
        colors.update({np.float32(box[4]): box[5] for each in found.values() for box in each})
        score = float(evaluate_image("00000.png", row)["correct"])
        needs = {each["class"] for each in row["include"] if "color" in each}
        reply = {name: [box if name in needs else box[:5] for box in each] for name, each in found.items()}
        truth = {key: row[key] for key in ("include", "exclude") if key in row}
        meta = {"min_score": 0.9 if row["tag"] == "counting" else 0.3}
        yield {"truth": truth, "meta": meta, "reply": json.dumps(reply, separators=(",", ":"))}, score


def detections(row: Mapping[str, Any], rng: random.Random) -> dict[str, list[list[Any]]]:
    """Objects as prompted, or nearly: one too many or too few, scores about the threshold, another color, another
    place; all scores differ, since the order of equal ones is not defined."""
    found: dict[str, list[list[Any]]] = {}
    scores = list(range(88 if row["tag"] == "counting" else 28, 100))
    rng.shuffle(scores)
    for wanted in row["include"]:
        boxes = []
        for _ in range(wanted["count"] + rng.choice([0, 0, 0, 0, 1, -1])):
            box = [0, 0, 9, 9]
            if row["tag"] == "position":
                dx, dy = STEPS[wanted["position"][0]] if "position" in wanted and rng.random() < 0.7 else (0, 0)
                x, y = (5 + rng.randrange(9) + rng.choice([0, 1, 2, 4, 8]) * step for step in (dx, dy))
                x += rng.choice([0, 0, 0, 4, -4])
                box = [x, y, x + rng.choice([2, 4, 8]), y + rng.choice([2, 4, 8])]
            color = wanted["color"] if "color" in wanted and rng.random() < 0.8 else rng.choice(COLORS)
            boxes.append([*box, scores.pop() / 100, color])
        if boxes:
            found[wanted["class"]] = boxes
    return found


class Pictures:
    """Pillow, as far as the script calls it on a picture that there is none of."""

    @staticmethod
    def open(path: str) -> None: ...

    @staticmethod
    def exif_transpose(picture: None) -> None: ...
