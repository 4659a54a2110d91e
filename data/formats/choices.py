"""Multiple-choice questions about sound: rows of AVQA (R1-AQA's training set), of MMAU, and any with `choices`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmpost.data.media.media import Media
from mmpost.data.readers.user_data import Own
from mmpost.data.sources.base import Indexed
from mmpost.errors import DataError
from mmpost.types import Part, Sample

TEMPLATE = "{question} {choices}"
"""Where the question and the options, as Python writes a list of texts, go into the prompt."""

UNASKED = "{question}"
"""What rows whose question stands in a column of another name are read with (`own(..., prompt=UNASKED)`)."""

PATHS = ("audio_path", "audio_id")
"""Columns of R1-AQA's and MMAU's rows that hold the path of the clip."""


def choice_sample(
    uid: str,
    sound: Media,
    question: str,
    choices: Sequence[str],
    answer: str,
    template: str,
    meta: Mapping[str, Any],
) -> Sample:
    """Sound, then text in one turn. The truth is the text of the right option; `meta` gains question and choices."""
    text = template.replace("{choices}", str(list(choices))).replace("{question}", question)
    return Sample(
        uid,
        (Part("audio", sound), Part("text", text)),
        truth=answer,
        meta={**meta, "question": question, "choices": list(choices)},
    )


class Choices(Indexed):
    """Rows with a clip, a question, options and the right one, as its text or its index from 0.

    | | clip | question | options | answer |
    |---|---|---|---|---|
    | AVQA `train_qa.json` | `audio_path`, or `video_name` with ".wav" | `question_text` | `multi_choice` | index |
    | MMAU | `audio_id` | `question` | `choices` | text |
    | yours | `audio`, or any of these | any form of rows | `choices` | either |

    AVQA asks about videos: "video" in its questions becomes "audio", as R1-AQA has it. `meta["kind"]` is MMAU's `task`
    or AVQA's `question_type`. `channel` is what becomes of several channels: their mean, or the first (R1-AQA).
    Raises DataError, naming file and row, for a row that lacks one of them.
    """

    def __init__(self, rows: Own, template: str = TEMPLATE, channel: str = "mean") -> None:
        self.rows, self.template, self.channel = rows, template, channel

    def where(self, index: int) -> str:
        """File and row of a sample, as its messages name them."""
        return self.rows.where(index)

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int) -> Sample:
        row, where = self.rows[index], self.where(index)
        question = row.meta.get("question_text")
        if question is None:
            question = "".join(p.value for p in row.prompt if p.modality == "text" and p.role == "user").strip()
            if question in ("", UNASKED):
                raise DataError(
                    f"{where}: wanted a question, found none; add `question`, or say data.prompt for all rows"
                )
        else:
            question = str(question).replace("video", "audio").replace("Video", "Audio")
        choices = row.meta.get("choices", row.meta.get("multi_choice"))
        if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) for c in choices):
            raise DataError(
                f"{where}: wanted `choices` (AVQA: `multi_choice`) as a list of two or more texts, "
                f"found {choices!r:.200}"
            )
        kind = row.meta.get("task", row.meta.get("question_type", "own"))
        made = choice_sample(
            row.uid,
            self._sound(index, row),
            question,
            choices,
            _answer(row.truth, choices, where),
            self.template,
            {"kind": str(kind), **row.meta},
        )
        return replace(made, prompt=(*(p for p in row.prompt if p.role == "system"), *made.prompt))

    def _sound(self, index: int, row: Sample) -> Media:
        found = [p.value for p in row.prompt if p.modality == "audio"]
        if not found:
            path = next((row.meta[name] for name in PATHS if row.meta.get(name)), None)
            if path is None and row.meta.get("video_name"):
                path = f"{row.meta['video_name']}.wav"
            if path is None:
                raise DataError(
                    f"{self.where(index)}: wanted a clip, found none; add the column `audio` (AVQA: `audio_path`, "
                    "MMAU: `audio_id`) with its path"
                )
            found = [self.rows.medium(index, path, "audio")]
        if len(found) > 1:
            raise DataError(f"{self.where(index)}: wanted one clip, found {len(found)}; make them several rows")
        return found[0] if self.channel == "mean" else replace(found[0], options=(("channel", self.channel),))


def _answer(truth: Any, choices: Sequence[str], where: str) -> str:
    """The text of the right option."""
    if isinstance(truth, int) and not isinstance(truth, bool) and 0 <= truth < len(choices):
        return choices[truth]
    if isinstance(truth, str) and truth in choices:
        return truth
    raise DataError(
        f"{where}: wanted an answer that is one of the options {list(choices)!r:.200} or an index from 0 to "
        f"{len(choices) - 1}, found {truth!r:.80}"
    )
