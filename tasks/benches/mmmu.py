"""MMMU validation: 900 questions of college subjects, with pictures, multiple choice or free (arXiv 2311.16502)."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmpost.benchmarks.benchmark import Benchmark, HubFiles, Rule
from mmpost.benchmarks.files import Row, picture, rows
from mmpost.benchmarks.summaries import Mean
from mmpost.errors import DataError
from mmpost.rewards.mmmu import letters, mmmu_letter, mmmu_open, mmmu_values, strict_reading, strict_score
from mmpost.types import Part, Sample

DISCIPLINES = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        *("Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy"),
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        *("Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics", "Energy_and_Power"),
        *("Materials", "Mechanical_Engineering"),
    ),
}
SUBJECTS = tuple(subject for subjects in DISCIPLINES.values() for subject in subjects)
SEED = 42
"""Of the letters that the official script draws for replies that it cannot read, in the order of the questions."""


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows {"id", "question", "options", "answer", "question_type", "image_1" to "image_7"} of all subjects."""
    return [_question(row) for path in paths for row in rows(path)]


def _question(row: Row) -> Sample:
    uid, question = row.text("id"), row.text("question")
    options = list_in(row, "options") if row.text("question_type") == "multiple-choice" else None
    answer = row.text("answer")
    truth: Any = answer if options is not None else list_in(row, "answer") if answer.startswith("[") else [answer]
    lines = [question]
    if options is None:
        lines.append("Answer the question using a single word or phrase.")
    else:
        lines += [f"({chr(ord('A') + i)}) {option}" for i, option in enumerate(options)]
        lines.append("Answer with the option's letter from the given choices directly.")
    subject = re.sub(r"^[a-z]+_|_\d+$", "", uid)
    discipline = next((name for name, subjects in DISCIPLINES.items() if subject in subjects), "other")
    meta = {"options": options, "groups": [discipline, subject]}
    return Sample(uid, tuple(parts(row, "\n".join(lines))), truth=truth, meta=meta, where=row.where)


def list_in(row: Row, name: str) -> list[str]:
    """A column that holds the text of a Python list."""
    try:
        value = ast.literal_eval(row.text(name))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise DataError(f"{row.where}: wanted a list in {name!r}, found {row.text(name)!r:.80}; use the official file")
    return [str(each) for each in value]


def parts(row: Row, text: str) -> Iterator[Part]:
    """The text, with pictures where it says <image 1>; pictures that it does not mention come first."""
    pieces = re.split(r"<image ([1-7])>", text)
    mentioned = set(pieces[1::2])
    for number in "1234567":
        if number not in mentioned and row.content.get(f"image_{number}") is not None:
            yield Part("image", picture(row, f"image_{number}"))
    for place, piece in enumerate(pieces):
        if place % 2:
            yield Part("image", picture(row, f"image_{piece}"))
        elif piece:
            yield Part("text", piece)


def read(sample: Sample, text: str) -> Any:
    return mmmu_values(text) if sample.meta["options"] is None else mmmu_letter(sample, text)


def drawn_letters(replies: Sequence[tuple[Sample, str]], read: Callable[[Sample, str], Any]) -> list[Any]:
    """Readings in the order of the data, with a letter at random where nothing is read."""
    rng = random.Random(SEED)
    readings = []
    for sample, text in replies:
        reading = read(sample, text)
        readings.append(rng.choice(letters(sample)) if reading is None else reading)
    return readings


def read_all(replies: Sequence[tuple[Sample, str]]) -> list[Any]:
    return drawn_letters(replies, read)


def score(sample: Sample, reading: Any) -> float:
    return float(reading == sample.truth) if sample.meta["options"] is not None else mmmu_open(sample, reading)


BENCHMARK = Benchmark(
    files=tuple(f"{subject}/validation-00000-of-00001.parquet" for subject in SUBJECTS),
    rows=questions,
    official=Rule(read, score, read_all=read_all),
    strict=Rule(strict_reading, strict_score),
    summary=Mean(),
    paper="2311.16502",
    license="Apache-2.0",
    source="the hub's MMMU/MMMU (validation)",
    reading=(
        "the last letter in parentheses, else between blanks, else the last option whose text occurs; free answers:"
        ' what follows words such as "is"'
    ),
    metrics="accuracy, by discipline and subject",
    hub=HubFiles("MMMU/MMMU"),
    quirks=(
        "a letter at random, seed 42, where none is read: **B**, B) and an empty reply among them",
        '"A dog" names option A: a capital between blanks is a letter',
        "a free answer is right if an accepted text occurs in what follows words such as is and answer",
    ),
)
