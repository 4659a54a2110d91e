"""RefCOCO: a few phrases in the form of its files, a right reply to them, and the script of InternVL that scores it."""

from __future__ import annotations

import json
import random
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, texts


def files(name: str, splits: Sequence[str]) -> dict[str, str]:
    rows = [
        {"image": f"data/coco/train2014/{i // 2}.jpg", "sent": sent, "bbox": box, "width": 640, "height": 480}
        for i, (sent, box) in enumerate([("the dog", [0.0, 0.0, 320.0, 240.0]), ("a cat", [64, 48, 128, 96])])
    ]
    return {f"{name}_{split}.jsonl": "".join(json.dumps(row) + "\n" for row in rows) for split in splits}


FILES = files("refcoco", ("val", "testA", "testB"))
REPOSITORY = "github.com/OpenGVLab/InternVL"


def gold(sample: Sample) -> str:
    (box,), (width, height) = sample.truth["boxes"], sample.truth["frame"]
    return str([1000 * v / side for v, side in zip(box, (width, height) * 2, strict=True)])


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    source = (checkout / "internvl_chat" / "eval" / "refcoco" / "evaluate_grounding.py").read_text(encoding="utf-8")
    overlap = source[source.index("def box_iou") : source.index("def collate_fn")]
    start = source.index("correct = total_cnt = 0")
    scoring = source[start : source.index("print(", start)]
    pattern = re.search(r"PATTERN = .*", source)
    assert pattern is not None
    code = compile(f"{overlap}\n{pattern[0]}\n{textwrap.dedent(' ' * 12 + scoring)}", "evaluate_grounding.py", "exec")
    for _ in range(REPLIES):
        sides = [rng.randrange(100, 700), rng.randrange(100, 700)]
        box = [round(v, 2) for x in sides for v in sorted((rng.uniform(0, x), rng.uniform(0, x)))]
        box = [box[0], box[2], box[1], box[3]]
        reply = written(box, sides, rng)
        outputs = [{"answer": reply, "gt_bbox": box, "hw": (sides[1], sides[0])}]
        names = {"torch": torch, "re": re, "merged_outputs": outputs, "box_area": area}
        exec(code, names)
        truth = {"boxes": [box], "points": [None], "frame": sides}
        yield {"truth": truth, "meta": {}, "reply": reply}, float(names["correct"])


def area(boxes: torch.Tensor) -> torch.Tensor:
    """torchvision's box_area."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def written(box: Sequence[float], sides: Sequence[float], rng: random.Random) -> str:
    """The box or one near it, in some notation and scale, among other words."""
    scale = rng.choice([1, 1, 1000, 1000, 1000, 999])
    spread = rng.choice([0, 0, 0.02, 0.1, 0.3])
    numbers = [scale * (v / side + rng.uniform(-spread, spread)) for v, side in zip(box, [*sides] * 2, strict=True)]
    digits = rng.choice([0, 2, 3]) if scale > 1 else 3
    said = [f"{v:.{digits}f}" for v in numbers]
    if rng.random() < 0.1:
        rng.shuffle(said)
    if rng.random() < 0.1:
        said[rng.randrange(4)] = rng.choice(["", "x1", "nan", "inf", "-5", "1e3", " 7 ", "1_0", "٣"])
    plain = ", ".join(said)
    other = ",".join(str(rng.randrange(1000)) for _ in range(rng.choice([3, 4, 5])))
    forms = [
        *(f"[{plain}]", f"[[{plain}]]", f"[[[{plain}]]", f"<box>[[{plain}]]</box>", f"({plain})", plain, f"[{plain}"),
        *(f"the dog[[{plain}]]", f"[{plain}], or [{other}]", f"[{other}] or [{plain}]", f"[a, b] [{plain}]"),
        *(f"[a, b\n[{plain}]", f"[{plain},\n]", f"[{said[0]},\n{','.join(said[1:])}]", f"[{plain}, 0.9]"),
        *(f'[{{"bbox_2d": [{plain}]}}]', f"({said[0]},{said[1]}),({said[2]},{said[3]})", f"[x]\n[{plain}]"),
        texts(f"[{plain}]", [f"[{other}]", "[0, 0, 1000, 1000]", "[0, 0, 1, 1]", "[]"], rng),
    ]
    return rng.choice(forms)
