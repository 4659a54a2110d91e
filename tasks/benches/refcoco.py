"""RefCOCO: the box of the object that a phrase refers to (arXiv 1608.00272); also what RefCOCO+ and RefCOCOg share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from mmpost.benchmarks.benchmark import Benchmark, Rule
from mmpost.benchmarks.files import Row, medium, rows
from mmpost.benchmarks.summaries import Mean
from mmpost.errors import DataError
from mmpost.rewards.refcoco import internvl_box, internvl_score, named_box, named_box_score
from mmpost.types import Part, Sample

PROMPT = "Locate what this phrase refers to, and answer with its bounding box as [x1, y1, x2, y2]: {phrase}"


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows {"image", "sent", "bbox" as x1, y1, x2, y2 in pixels, "width", "height"}, one for each phrase.

    A question is named by its split and its row. Pictures are those of COCO train2014, under the path of the row, in
    train2014/ or beside the files.
    """
    samples = []
    for path in paths:
        split = path.stem.rpartition("_")[2]
        for number, row in enumerate(rows(path), 1):
            image = row.text("image")
            name = PurePosixPath(image).name
            picture = medium(path.parent, (name, f"train2014/{name}", image), "image")
            truth = {"boxes": [_numbers(row, "bbox")], "points": [None], "frame": _size(row)}
            prompt = (Part("image", picture), Part("text", PROMPT.format(phrase=row.text("sent"))))
            meta = {"groups": [split], "image": name}
            samples.append(Sample(f"{split}/{number}", prompt, truth=truth, meta=meta, where=row.where))
    return samples


def _numbers(row: Row, name: str) -> list[float]:
    value = row.content.get(name)
    if not isinstance(value, list) or len(value) != 4 or not all(isinstance(v, int | float) for v in value):
        raise DataError(f"{row.where}: wanted a box in {name!r}, found {value!r:.80}; use the official file")
    return list(map(float, value))


def _size(row: Row) -> list[float]:
    size = [row.content.get(name) for name in ("width", "height")]
    if not all(isinstance(side, int) and side > 0 for side in size):
        raise DataError(
            f"{row.where}: wanted pixels in 'width' and 'height', found {size!r:.80}; use the official file"
        )
    return [float(str(side)) for side in size]


def referring(name: str, splits: Sequence[str], paper: str) -> Benchmark:
    """The benchmark of the files `name`_SPLIT.jsonl; accuracy at an IoU of 0.5, by split."""
    return Benchmark(
        files=tuple(f"{name}_{split}.jsonl" for split in splits),
        rows=questions,
        official=Rule(lambda sample, text: internvl_box(text), internvl_score),
        strict=Rule(lambda sample, text: named_box(text), named_box_score),
        summary=Mean("acc@0.5"),
        paper=paper,
        license="Apache-2.0 (annotations); pictures of COCO",
        source=(
            "https://github.com/QwenLM/Qwen-VL (eval_mm/EVALUATION.md names the files); `refcoco+_...`; "
            "`refcocog_val.jsonl`, `_test`, as QwenLM/Qwen-VL (eval_mm/) names them; pictures of COCO train2014 "
            "beside them"
        ),
        reading=(
            "four numbers in the first brackets, in the frame in which the model writes boxes; of predictions, "
            "`coordinates=pixels` or `thousand` says which"
        ),
        metrics="accuracy at an IoU of 0.5, by split",
        coordinates=True,
        max_tokens=256,
        cluster=lambda sample: sample.meta["image"],
        quirks=(
            "the benchmark has no script for written replies: the rule is that of InternVL, and without coordinates= "
            "takes numbers as thousandths of the sides, or as fractions where they add up to less than 4",
            "the first brackets with three commas count, whatever the reply says after them, and an inverted box may "
            "have an area",
        ),
    )


BENCHMARK = referring("refcoco", ("val", "testA", "testB"), "1608.00272")
