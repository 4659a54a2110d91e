"""HallusionBench: 1,129 yes/no questions about pictures and edited copies of them (arXiv 2310.14566)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpost.benchmarks.benchmark import Benchmark, Metric, Numbers, Rule, Scored
from mmpost.benchmarks.files import medium, rows
from mmpost.benchmarks.summaries import ratio
from mmpost.errors import DataError
from mmpost.rewards.yes_no import first_yes_no, hallusion_score
from mmpost.types import Part, Sample

ID = ("category", "subcategory", "set_id", "figure_id", "question_id")
ANSWERS = {"0": "no", "1": "yes"}
VERDICTS = {"0": "wrong", "1": "right", "2": "unclear"}
"""What the judge of the official script says of a reply."""


def row_id(row: Mapping[str, Any]) -> str:
    """CATEGORY/SUBCATEGORY/SET/FIGURE/QUESTION, such as VD/illusion/0/1/2."""
    return "/".join(str(row.get(name)) for name in ID)


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows with the keys of `ID`, "visual_input", "question", "gt_answer" and "filename" (null where none is shown)."""
    samples = []
    for row in rows(paths[0]):
        category, kind, group, figure, question = (row.text(name) for name in ID)
        answer, file = row.text("gt_answer"), row.content.get("filename")
        if answer not in ANSWERS:
            raise DataError(f"{row.where}: wanted 0 or 1 in 'gt_answer', found {answer!r:.80}; use the official file")
        prompt = [Part("text", row.text("question"))]
        if file is not None:
            name = row.text("filename").removeprefix("./")
            prompt.insert(0, Part("image", medium(paths[0].parent, (f"hallusion_bench/{name}", name), "image")))
        meta = {
            "category": category,
            "set": f"{category}/{kind}/{group}",
            "figure": figure,
            "pair": question,
            "is_hard": row.text("visual_input") == "2",
            "no_figure": category == "VS" and figure == "0",
        }
        samples.append(Sample(row_id(row.content), tuple(prompt), truth=ANSWERS[answer], meta=meta, where=row.where))
    return samples


class Consistency:
    """Shares of questions (aAcc), of questions about all figures of a set (qAcc) and of figures with all their
    questions (fAcc) that are answered rightly, and qAcc of the easy and the hard questions alone; for both categories.

    Questions without a figure belong to none.
    """

    def count(self, cluster: Sequence[Scored]) -> Mapping[str, float]:
        units: dict[tuple[str, ...], bool] = {}
        for sample, _, _, score in cluster:
            meta = sample.meta
            names = [
                ("aAcc", sample.uid),
                ("qAcc", meta["pair"]),
                ("hard" if meta["is_hard"] else "easy", meta["pair"]),
            ]
            names += [] if meta["no_figure"] else [("fAcc", meta["figure"])]
            for name, unit in names:
                for group in ("", f"/{meta['category']}"):
                    key = (f"{name}{group}", meta["set"], unit)
                    units[key] = units.get(key, True) and score == 1
        sums: dict[str, float] = defaultdict(float)
        for (name, *_), is_right in units.items():
            sums[f"n {name}"] += 1
            sums[f"right {name}"] += is_right
        return sums

    def metrics(self, sums: Mapping[str, Numbers]) -> dict[str, Metric]:
        names = [f"{name}{group}" for group in ("", "/VD", "/VS") for name in ("aAcc", "qAcc", "fAcc", "easy", "hard")]
        return {
            name: Metric(ratio(sums[f"right {name}"], sums[f"n {name}"]), sums[f"n {name}"], is_share=True)
            for name in names
            if f"n {name}" in sums
        }


def verdict(sample: Sample, reading: str | None) -> str:
    return "unclear" if reading is None else "right" if reading == sample.truth else "wrong"


BENCHMARK = Benchmark(
    files=("HallusionBench.json",),
    rows=questions,
    official=Rule(
        lambda sample, text: first_yes_no(text),
        lambda sample, reading: hallusion_score(sample, verdict(sample, reading)),
    ),
    by_key={"gpt4v_output_gpt_check": Rule(lambda sample, text: VERDICTS.get(text.strip()), hallusion_score)},
    strict=Rule(
        lambda sample, text: first_yes_no(text), lambda sample, reading: float(verdict(sample, reading) == "right")
    ),
    summary=Consistency(),
    paper="2310.14566",
    license="BSD-3-Clause",
    source=(
        "https://github.com/tianyi-lab/HallusionBench (pictures in hallusion_bench.zip); pictures in hallusion_bench/"
    ),
    reading=(
        "the first word if it is yes or no, else the one of them that occurs; `key=gpt4v_output_gpt_check` scores "
        "the verdicts of the official judge, as the official script does"
    ),
    metrics="accuracy of questions, of questions about all figures of a set, and of figures",
    hashes={"ca6e0fb677dd56e5fb0e2700d06c58d01f8a6ae66e0f1773b2ac48c0a095d051": "release of 744007c"},
    row_id=row_id,
    max_tokens=256,
    cluster=lambda sample: sample.meta["set"],
    quirks=(
        "GPT-4, which compares replies with a reference answer, is replaced by the yes or no that a reply says, except "
        "with key=gpt4v_output_gpt_check, which holds its verdicts",
        "where no figure is shown that the question is about, an unclear reply is right",
        "easy and hard are called accuracies of questions, but count groups of them that are all right",
    ),
)
