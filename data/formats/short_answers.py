"""Visual questions with short answers, in the format of HRVQA-VL."""

from __future__ import annotations

from dataclasses import replace

from mmpost.data.readers.user_data import UserData
from mmpost.data.sources.curriculum import Typed
from mmpost.errors import DataError
from mmpost.types import Part, Sample


class ShortAnswers(Typed):
    """Rows {image, question, answer, task, stage, cot}; stage (a name, or a number from 1) and cot are optional.

    The question replaces {question} in `prompt`; the truth is the answer as text. Reading a row without an image, an
    answer or a question type (`task`) raises DataError with its name.
    """

    def __init__(self, rows: UserData, prompt: str) -> None:
        self.rows, self.prompt = rows, prompt

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, index: int) -> str:
        """File and row of a sample, for messages."""
        return self.rows.where(index)

    def question_type(self, index: int) -> str:
        """The question type of a row."""
        return _question_type(self.rows[index])

    def stage_of(self, index: int) -> str | int | None:
        """The stage that the row names, if any."""
        return self.rows[index].meta.get("stage")

    def sample(self, index: int) -> Sample:
        row = self.rows[index]
        images = [p for p in row.prompt if p.modality == "image"]
        if not images:
            raise DataError(f"{row.uid}: wanted an image to ask about, found none; add the column `image`")
        if not isinstance(row.truth, str | int | float) or not str(row.truth).strip():
            raise DataError(f"{row.uid}: wanted a short answer in `answer`, found {row.truth!r:.100}")
        question = "".join(p.value for p in row.prompt if p.modality == "text" and p.role == "user").strip()
        instruction = Part("text", self.prompt.replace("{question}", question))
        prompt = (*(p for p in row.prompt if p.role == "system"), *images, instruction)
        meta = {**row.meta, "task": _question_type(row), "question": question}
        return replace(row, prompt=prompt, replies=(), truth=str(row.truth).strip(), meta=meta)


def _question_type(row: Sample) -> str:
    question_type = row.meta.get("task")
    if not isinstance(question_type, str) or not question_type.strip():
        raise DataError(f"{row.uid}: wanted the question type in `task`, found {question_type!r}; add the column")
    return question_type.strip()
