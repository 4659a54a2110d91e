"""Labels of pictures of tables, written by a model: what TRivia (arXiv 2512.01248) is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from mmpost.config.settings import Settings
from mmpost.errors import DataError
from mmpost.judges.tables.config import PictureModel
from mmpost.judges.tables.readers import ask, refuse_failures, with_pictures
from mmpost.rewards.table import table_markup
from mmpost.rewards.text import answer_or_text
from mmpost.tables.html import read_html, write_html
from mmpost.tables.otsl import write_otsl
from mmpost.tables.table import Table
from mmpost.types import Context, Part, Reply, Sample, Transform

INSTRUCTION = (
    "Write the table in this picture in HTML, with its texts, rowspan and colspan, as <table>...</table> and nothing "
    "else."
)


class LabelPictures(Transform, Settings):
    """Replaces a sample's replies by the table that a model reads in its picture, as valid markup.

    Tables are read leniently, so that of one that was cut off the beginning is the label. Samples for which a reply
    holds no table are dropped; logs their fraction as labels/missing. Raises TrainError if a request failed.
    """

    model: PictureModel | None
    """Who reads the picture; null: the first reply of a sample is such a reading already."""
    form: Literal["otsl", "html"] = "otsl"
    """The markup of the label."""
    line_breaks: bool = True
    """Put each row of OTSL on a line of its own."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        labelled = []
        for sample, table in zip(samples, self._tables(samples), strict=True):
            context.log("labels/missing", float(table is None))
            if table is not None:
                otsl = write_otsl(table, line_breaks=self.line_breaks).text
                text = otsl if self.form == "otsl" else write_html(table)
                labelled.append(replace(sample, replies=(Reply((Part("text", text, "assistant"),)),)))
        return labelled

    def _tables(self, samples: Sequence[Sample]) -> list[Table | None]:
        if self.model is None:
            return [_table(sample.replies[0].text) for sample in samples]
        if self.model.by == "stand_in":
            reader = self.model.stand_in("writer")
            return [reader.table(sample) for sample in samples]
        conversations = [with_pictures(sample, INSTRUCTION, sees_picture=True) for sample in samples]
        answers = ask(self.model.backend(self.model.by), conversations, self.model.reasks)
        refuse_failures("labels of pictures", [answer.failure for answer in answers])
        return [_table(answer.text) for answer in answers]


def _table(text: str) -> Table | None:
    """The table in a reply; None without one, or if it is too large to read."""
    try:
        markup = table_markup(answer_or_text(text))
        table = Table() if markup is None else read_html(markup, strict=False).table
    except DataError:
        return None
    return table if table.sections else None
