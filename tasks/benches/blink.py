"""BLINK validation: 1,901 questions on 14 tasks that people solve within a blink (arXiv 2404.12390)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpost.benchmarks.benchmark import Benchmark, HubFiles, Rule
from mmpost.benchmarks.files import picture, rows
from mmpost.benchmarks.summaries import MacroMean
from mmpost.errors import DataError
from mmpost.rewards.blink import LETTERS, all_letters, blink_option, named
from mmpost.types import Part, Sample

TASKS = (
    *("Art_Style", "Counting", "Forensic_Detection", "Functional_Correspondence", "IQ_Test", "Jigsaw"),
    *("Multi-view_Reasoning", "Object_Localization", "Relative_Depth", "Relative_Reflectance"),
    *("Semantic_Correspondence", "Spatial_Relation", "Visual_Correspondence", "Visual_Similarity"),
)


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows {"idx", "prompt", "choices", "answer", "image_1" to "image_4"} of all tasks.

    Text comes before pictures, as in the official script; the sentence that it puts first in three tasks, so that
    GPT-4V does not refuse, is left out.
    """
    samples = []
    for task, path in zip(TASKS, paths, strict=True):
        for row in rows(path):
            answer, choices = row.text("answer"), row.texts("choices")
            if answer not in all_letters(LETTERS[: len(choices)]):
                raise DataError(
                    f"{row.where}: wanted the letter of one of {len(choices)} choices in parentheses in 'answer', "
                    f"found {answer!r:.80}; use the official file of the validation split"
                )
            names = [name for name in (f"image_{i}" for i in range(1, 5)) if row.content.get(name) is not None]
            pictures = [Part("image", picture(row, name)) for name in names or ["image_1"]]
            prompt = (Part("text", row.text("prompt")), *pictures)
            meta = {"options": choices, "group": task}
            samples.append(Sample(row.text("idx"), prompt, truth=answer, meta=meta, where=row.where))
    return samples


def is_right(sample: Sample, option: str | None) -> float:
    return float(option == sample.truth)


BENCHMARK = Benchmark(
    files=tuple(f"{task}/val-00000-of-00001.parquet" for task in TASKS),
    rows=questions,
    official=Rule(lambda sample, text: blink_option(text, sample.meta["options"]), is_right),
    by_key={"prediction": Rule(lambda sample, text: text, is_right)},
    strict=Rule(lambda sample, text: named(text, sample.meta["options"]), is_right),
    summary=MacroMean(),
    paper="2404.12390",
    license="Apache-2.0; pictures of many sets",
    source="the hub's BLINK-Benchmark/BLINK (validation)",
    reading=(
        "the letter in parentheses as the only one between blanks, in the last paragraph or the whole reply; or a "
        "letter as the whole reply; `key=prediction` scores letters that the official script has read"
    ),
    metrics="mean accuracy of the tasks, and each; accuracy over all questions",
    hub=HubFiles("BLINK-Benchmark/BLINK"),
    row_id=lambda row: str(row.get("idx")),
    max_tokens=512,
    quirks=(
        "the language model that reads replies without one letter in parentheses is left out: they are wrong, except "
        "with key=prediction, which scores letters that were read before",
        '"(B)." and "**(B)**" are unread: only blanks separate words',
        "tasks count alike, whatever their number of questions",
    ),
)
