"""Labels of pictures of tables, written by a large model: what TRivia (arXiv 2512.01248) is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from mmpost.config.settings import Settings
from mmpost.errors import DataError, TrainError
from mmpost.judges.tables.config import PictureModel
from mmpost.judges.tables.readers import ask, with_pictures
from mmpost.tables.html import read_html, write_html
from mmpost.tables.otsl import write_otsl
from mmpost.tables.table import Table
from mmpost.types import Context, Part, Reply, Sample, Transform

INSTRUCTION = (
    "Write the table in this picture in HTML, with its texts, rowspan and colspan, as <table>...</table> and nothing "
    "else."
)


class LabelPictures(Transform, Settings):
    """Replaces a sample's replies by the table that a model reads in its picture.

    Samples for which its reply holds no table are dropped; logs their fraction as labels/missing. Raises TrainError if
    a request failed.
    """

    model: PictureModel
    """Who reads the picture."""
    form: Literal["otsl", "html"] = "otsl"
    """The markup of the label."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        labelled = []
        for sample, table in zip(samples, self._tables(samples), strict=True):
            context.log("labels/missing", float(table is None))
            if table is not None:
                text = write_html(table) if self.form == "html" else write_otsl(table).text.strip()
                labelled.append(replace(sample, replies=(Reply((Part("text", text, "assistant"),)),)))
        return labelled

    def _tables(self, samples: Sequence[Sample]) -> list[Table | None]:
        if self.model.by == "stand_in":
            reader = self.model.stand_in("writer")
            return [reader.table(sample) for sample in samples]
        conversations = [with_pictures(sample, INSTRUCTION, sees_picture=True) for sample in samples]
        answers = ask(self.model.backend(self.model.by), conversations, self.model.reasks)
        failures = [answer.failure for answer in answers if answer.failure]
        if failures:
            raise TrainError(
                f"wanted labels of {len(answers)} pictures, found {len(failures)} without ({failures[0]}); check that "
                "the model answers and start again: what it answered is cached"
            )
        return [_table(answer.text) for answer in answers]


def _table(text: str) -> Table | None:
    try:
        table = read_html(text, strict=False).table if "<table" in text.lower() else Table()
    except DataError:  # too large to read
        return None
    return table if table.sections else None
