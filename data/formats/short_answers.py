"""Rows of questions about pictures with short answers, in the format of HRVQA-VL."""

from __future__ import annotations

from dataclasses import replace

from mmpost.data.readers.user_data import Own
from mmpost.data.sources.curriculum import Typed
from mmpost.errors import DataError
from mmpost.types import Part, Sample


class ShortAnswers(Typed):
    """Rows {image, question, answer, task, stage, cot}; stage (a name, or a number from 1) and cot may be missing.

    The question is put into `prompt` at {question}; the truth is the answer as text. Raises DataError, naming the row,
    where a picture, the answer or the type of question (`task`) is missing.
    """

    def __init__(self, rows: Own, prompt: str) -> None:
        self.rows, self.prompt = rows, prompt

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, index: int) -> str:
        """File and row of a sample, as its messages name them."""
        return self.rows.where(index)

    def type_of(self, index: int) -> str:
        """The type of a question."""
        return self._type(self.rows[index])

    def stage_of(self, index: int) -> str | int | None:
        """What the row says of its stage."""
        return self.rows[index].meta.get("stage")

    def sample(self, index: int) -> Sample:
        row = self.rows[index]
        pictures = [p for p in row.prompt if p.modality == "image"]
        if not pictures:
            raise DataError(f"{row.uid}: wanted a picture to ask about, found none; add the column `image`")
        if not isinstance(row.truth, str | int | float) or not str(row.truth).strip():
            raise DataError(f"{row.uid}: wanted a short answer in `answer`, found {row.truth!r:.100}")
        said = "".join(p.value for p in row.prompt if p.modality == "text" and p.role == "user").strip()
        asked = Part("text", self.prompt.replace("{question}", said))
        prompt = (*(p for p in row.prompt if p.role == "system"), *pictures, asked)
        meta = {**row.meta, "task": self._type(row), "question": said}
        return replace(row, prompt=prompt, replies=(), truth=str(row.truth).strip(), meta=meta)

    def _type(self, row: Sample) -> str:
        kind = row.meta.get("task")
        if not isinstance(kind, str) or not kind.strip():
            raise DataError(f"{row.uid}: wanted the type of the question in `task`, found {kind!r}; add the column")
        return kind.strip()
