"""POPE: does a model see objects that are not there? Yes or no, three ways of choosing them (arXiv 2305.10355)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmpost.benchmarks.benchmark import Benchmark, Metric, Numbers, Rule, Scored
from mmpost.benchmarks.files import medium, rows
from mmpost.benchmarks.predictions import id_of_split
from mmpost.benchmarks.summaries import ratio
from mmpost.errors import DataError
from mmpost.rewards.yes_no import pope_yes_no, yes_no
from mmpost.types import Part, Sample

SPLITS = ("random", "popular", "adversarial")
"""How the objects that are not there were chosen."""
INSTRUCTION = "\nAnswer the question using a single word or phrase."


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows {"question_id", "image", "text", "label"} of the three files; images lie beside them or in val2014/."""
    samples = []
    for split, path in zip(SPLITS, paths, strict=True):
        for row in rows(path):
            image, label = row.text("image"), row.text("label")
            if label not in ("yes", "no"):
                raise DataError(f"{row.where}: wanted yes or no in 'label', found {label!r:.80}; use the official file")
            picture = medium(path.parent, (image, f"val2014/{image}"), "image")
            prompt = (Part("image", picture), Part("text", row.text("text") + INSTRUCTION))
            uid = f"{split}/{row.content.get('question_id')}"
            samples.append(Sample(uid, prompt, truth=label, meta={"split": split, "image": image}, where=row.where))
    return samples


class YesNo:
    """Accuracy, precision, recall and F1 of "yes", and how often it is said, for each split; the mean F1 of the splits.

    A reply that is neither counts as wrong, and not as yes.
    """

    def count(self, cluster: Sequence[Scored]) -> Mapping[str, float]:
        sums: dict[str, float] = {}
        for sample, _, reading, score in cluster:
            split = sample.meta["split"]
            said, true = reading == "yes", sample.truth == "yes"
            for name, value in (("n", 1), ("right", score), ("said", said), ("true", true), ("hit", said and true)):
                sums[f"{name}/{split}"] = sums.get(f"{name}/{split}", 0.0) + value
        return sums

    def metrics(self, sums: Mapping[str, Numbers]) -> dict[str, Metric]:
        metrics: dict[str, Metric] = {}
        splits = [split for split in SPLITS if f"n/{split}" in sums]
        for split in splits:
            n, right, said, true, hit = (sums[f"{name}/{split}"] for name in ("n", "right", "said", "true", "hit"))
            metrics[f"f1/{split}"] = Metric(ratio(2 * hit, said + true), n)
            metrics[f"accuracy/{split}"] = Metric(ratio(right, n), n, is_share=True)
            metrics[f"precision/{split}"] = Metric(ratio(hit, said), said, is_share=True)
            metrics[f"recall/{split}"] = Metric(ratio(hit, true), true, is_share=True)
            metrics[f"yes/{split}"] = Metric(ratio(said, n), n, is_share=True)
        f1 = np.mean([metrics[f"f1/{split}"].value for split in splits], axis=0)
        return {"f1": Metric(f1, np.sum([sums[f"n/{split}"] for split in splits], axis=0)), **metrics}


def is_right(sample: Sample, reading: str | None) -> float:
    return float(reading == sample.truth)


BENCHMARK = Benchmark(
    files=tuple(f"coco_pope_{split}.json" for split in SPLITS),
    rows=questions,
    official=Rule(lambda sample, text: pope_yes_no(text), is_right),
    strict=Rule(lambda sample, text: yes_no(text), is_right),
    summary=YesNo(),
    paper="2305.10355",
    license="MIT; images of COCO",
    source="https://github.com/RUCAIBox/POPE (output/coco); images of COCO val2014 beside them",
    reading="the first sentence has No, no or not: no, else yes",
    metrics="F1, accuracy, precision, recall and share of yes, for each way of choosing objects; mean F1",
    hashes={"022c2a8a58ed5abfd7f5646939daa9870922160eb21f7d995b517925a7babcb3": "release of 3df3ba1"},
    uid_in=lambda path, uid: id_of_split(path, uid, SPLITS),
    max_tokens=64,
    cluster=lambda sample: sample.meta["image"],
    quirks=(
        "an empty reply means yes",
        '"NO", and "No" before a line break, mean yes: only blanks separate words, and case counts',
        "what follows the first full stop is not read",
    ),
)
