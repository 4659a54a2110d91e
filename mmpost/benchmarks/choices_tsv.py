"""Multiple-choice questions in VLMEvalKit's TSV (arXiv 2407.11691): base64 pictures, options in columns A, B, ..."""

from __future__ import annotations

import hashlib
import itertools
import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from mmpost.benchmarks.files import Row, rows
from mmpost.data.media.media import Media, media
from mmpost.errors import DataError
from mmpost.types import Part

REFERENCE = 64
"""Characters that a cell of pictures has at most where it names the row that holds the picture."""


class Choice(NamedTuple):
    """A question with its options and picture."""

    row: Row
    index: str
    options: list[str]
    answer: str
    """The letter."""
    picture: Media
    picture_id: str
    """Equal for equal pictures."""

    @property
    def prompt(self) -> tuple[Part, ...]:
        """VLMEvalKit's prompt for multiple choice."""
        hint = self.row.content.get("hint")
        lines = [
            *([f"Hint: {hint}"] if hint else []),
            f"Question: {self.row.text('question')}",
            "Options:",
            *(f"{letter}. {option}" for letter, option in zip(string.ascii_uppercase, self.options, strict=False)),
            "Please select the correct answer from the options above. \n",
        ]
        return Part("image", self.picture), Part("text", "\n".join(lines))


def choices(path: Path) -> Iterator[Choice]:
    """The rows {"index", "question", "hint", "A", "B", ..., "answer", "image"}, of which `hint` may be missing.

    Raises DataError for a row without one of them, or whose answer is none of its options.
    """
    table = {row.text("index"): row for row in rows(path)}
    pictures: dict[str, tuple[Media, str]] = {}
    for index, row in table.items():
        answer = row.text("answer")
        options = list(itertools.takewhile(bool, (str(row.content.get(c, "")) for c in string.ascii_uppercase)))
        if answer not in list(string.ascii_uppercase[: len(options)]):
            raise DataError(
                f"{row.where}: wanted the letter of one of {len(options)} options in 'answer', found {answer!r:.80}; "
                "use the official file"
            )
        holder = _holder(index, table)
        if holder not in pictures:
            content = table[holder].text("image")
            digest = hashlib.sha256(content.encode()).hexdigest()[:16]
            pictures[holder] = media({"base64": content}, "image"), digest
        yield Choice(row, index, options, answer, *pictures[holder])


def _holder(index: str, table: Mapping[str, Row]) -> str:
    """The index of the row that holds the picture of a row."""
    cell = table[index].text("image")
    if len(cell) > REFERENCE:
        return index
    if cell not in table or len(table[cell].text("image")) <= REFERENCE:
        raise DataError(
            f"{table[index].where}: wanted a picture in 'image', or the index of a row with one, found {cell!r:.80}; "
            "use the official file"
        )
    return cell
