"""MATH-Vision: 3,040 problems of competitions, each with a picture, multiple choice or free (arXiv 2402.14804)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpost.benchmarks.benchmark import Benchmark, Rule
from mmpost.benchmarks.files import medium, rows
from mmpost.benchmarks.summaries import Mean
from mmpost.errors import DataError
from mmpost.rewards.mathvision import is_answer, mathvision_answer, strict_answer, strict_score
from mmpost.types import Part, Sample

INSTRUCTION = (
    'Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a multiple choice '
    'question, only one letter is allowed in the "\\boxed{}".\n'
)
LETTERS = "ABCDE"


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows {"id", "question", "options", "answer", "level", "subject", "image"}; pictures are in images/, beside the
    file or its folder. Options that are the letters themselves are in the picture, and not in the prompt."""
    samples = []
    for row in rows(paths[0]):
        options, answer, image = row.texts("options"), row.text("answer"), row.text("image")
        if options and answer not in list(LETTERS[: len(options)]):
            raise DataError(
                f"{row.where}: wanted the letter of one of {len(options)} options in 'answer', found {answer!r:.80}; "
                "use the official file"
            )
        shown = [] if options == list(LETTERS) else options
        lines = [row.text("question"), *(f"({letter}) {o}" for letter, o in zip(LETTERS, shown, strict=False))]
        prompt = (
            Part("image", medium(paths[0].parent, (image, f"../{image}"), "image")),
            Part("text", INSTRUCTION + "\n".join(lines)),
        )
        meta = {"options": options, "groups": [f"level {row.content.get('level')}", row.text("subject")]}
        samples.append(Sample(row.text("id"), prompt, truth=answer, meta=meta, where=row.where))
    return samples


BENCHMARK = Benchmark(
    files=("test.jsonl",),
    versions=(("testmini.jsonl",),),
    rows=questions,
    official=Rule(lambda sample, text: mathvision_answer(text), is_answer),
    by_key={"model_answer": Rule(lambda sample, text: text, is_answer)},
    strict=Rule(strict_answer, strict_score),
    summary=Mean(),
    paper="2402.14804",
    license="MIT",
    hashes={
        "36608758db6205692f59423316ba281a4e2e5f23286452ae31739ed4278133a8": "test of a1f5cc3",
        "449e238b768f702e2659543495f2c87ee1f41a9e9c013d174daf12029756227a": "testmini of a1f5cc3",
    },
    source="https://github.com/mathllm/MATH-V (data/test.jsonl); images/ beside it or its folder",
    reading=(
        'the last box, else what follows "the answer is", a letter at either end, or the whole reply, without units'
        " and degrees; `key=model_answer` scores answers that the official script has taken"
    ),
    metrics="accuracy, by level and subject",
    quirks=(
        "answers are read as numbers by a parser of arithmetic in place of latex2sympy2 1.9.1 and eval: equations, "
        "inequalities, functions such as sine, logarithm and binomials are not read",
        "numbers are equal to two decimals: 0.001 answers 0",
        "e^2 and \\tau are numbers; percent and 2:3 are quotients",
        "a full stop or a bracket too many ends the answer: 5)7 answers 5",
        "a reply that ends in a letter and a full stop, or begins with one on a line of its own, is this letter",
    ),
)
