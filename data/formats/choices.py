"""Multiple-choice questions about audio: rows of AVQA (the training set of R1-AQA), MMAU, or any with `choices`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmpost.data.media.media import Media
from mmpost.data.readers.user_data import UserData
from mmpost.data.sources.base import Indexed
from mmpost.errors import DataError
from mmpost.types import Part, Sample

TEMPLATE = "{question} {choices}"
"""The prompt: {question} and {choices} are replaced by the question and by the Python list of the options."""

NO_QUESTION = "{question}"
"""Prompt that marks rows without a question in a standard column: `user_data(..., prompt=NO_QUESTION)`."""

AUDIO_COLUMNS = ("audio_path", "audio_id")
"""Columns with the path of the clip in rows of R1-AQA and MMAU."""


def choice_sample(
    uid: str,
    audio: Media,
    question: str,
    choices: Sequence[str],
    answer: str,
    template: str,
    meta: Mapping[str, Any],
) -> Sample:
    """Build a sample: audio, then text. The truth is the correct option's text; `meta` gains question and choices."""
    text = template.replace("{choices}", str(list(choices))).replace("{question}", question)
    return Sample(
        uid,
        (Part("audio", audio), Part("text", text)),
        truth=answer,
        meta={**meta, "question": question, "choices": list(choices)},
    )


class Choices(Indexed):
    """Rows with an audio clip, a question, options, and the correct option as its text or its index from 0.

    | | clip | question | options | answer |
    |---|---|---|---|---|
    | AVQA `train_qa.json` | `audio_path`, or `video_name` with ".wav" | `question_text` | `multi_choice` | index |
    | MMAU | `audio_id` | `question` | `choices` | text |
    | yours | `audio`, or any of these | any form of rows | `choices` | either |

    AVQA asks about videos: "video" in its questions becomes "audio", as in R1-AQA. `meta["kind"]` is the question type:
    MMAU's `task` or AVQA's `question_type`. `channel` selects how audio with several channels becomes mono: their mean,
    or the first channel (R1-AQA). Reading a row that lacks one of these raises DataError with file and row.
    """

    def __init__(self, rows: UserData, template: str = TEMPLATE, channel: str = "mean") -> None:
        self.rows, self.template, self.channel = rows, template, channel

    def where(self, index: int) -> str:
        """File and row of a sample, for messages."""
        return self.rows.where(index)

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int) -> Sample:
        row, where = self.rows[index], self.where(index)
        question = row.meta.get("question_text")
        if question is None:
            question = "".join(p.value for p in row.prompt if p.modality == "text" and p.role == "user").strip()
            if question in ("", NO_QUESTION):
                raise DataError(
                    f"{where}: wanted a question, found none; add `question`, or set data.prompt for all rows"
                )
        else:
            question = str(question).replace("video", "audio").replace("Video", "Audio")
        choices = row.meta.get("choices", row.meta.get("multi_choice"))
        if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) for c in choices):
            raise DataError(
                f"{where}: wanted `choices` (AVQA: `multi_choice`) as a list of two or more texts, "
                f"found {choices!r:.200}"
            )
        question_type = row.meta.get("task", row.meta.get("question_type", "own"))
        sample = choice_sample(
            row.uid,
            self._audio(index, row),
            question,
            choices,
            _answer(row.truth, choices, where),
            self.template,
            {"kind": str(question_type), **row.meta},
        )
        system = tuple(p for p in row.prompt if p.role == "system")
        return replace(sample, prompt=(*system, *sample.prompt))

    def _audio(self, index: int, row: Sample) -> Media:
        clips = [p.value for p in row.prompt if p.modality == "audio"]
        if not clips:
            path = next((row.meta[name] for name in AUDIO_COLUMNS if row.meta.get(name)), None)
            if path is None and row.meta.get("video_name"):
                path = f"{row.meta['video_name']}.wav"
            if path is None:
                raise DataError(
                    f"{self.where(index)}: wanted a clip, found none; add the column `audio` (AVQA: `audio_path`, "
                    "MMAU: `audio_id`) with its path"
                )
            clips = [self.rows.medium(index, path, "audio")]
        if len(clips) > 1:
            raise DataError(f"{self.where(index)}: wanted one clip, found {len(clips)}; make them several rows")
        return clips[0] if self.channel == "mean" else replace(clips[0], options=(("channel", self.channel),))


def _answer(truth: Any, choices: Sequence[str], where: str) -> str:
    """The text of the correct option."""
    if isinstance(truth, int) and not isinstance(truth, bool) and 0 <= truth < len(choices):
        return choices[truth]
    if isinstance(truth, str) and truth in choices:
        return truth
    raise DataError(
        f"{where}: wanted an answer that is one of the options {list(choices)!r:.200} or an index from 0 to "
        f"{len(choices) - 1}, found {truth!r:.80}"
    )
