"""Readers answer questions about a table: from its markup, or from the picture, or without seeing either."""

from __future__ import annotations

import base64
import random
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from mmpost.config.settings import Settings
from mmpost.errors import DataError, TrainError
from mmpost.judges.answer_cache import Messages
from mmpost.judges.chat_judge import Answer, ChatBackend
from mmpost.rewards.table import truth_table
from mmpost.tables.html import read_html
from mmpost.tables.lookup import Lookup, answer_without_table, with_reading_errors
from mmpost.tables.questions import NOT_ANSWERABLE
from mmpost.tables.table import Table
from mmpost.types import Sample

_ANSWER = re.compile("<answer>(.*?)</answer>")

INSTRUCTION = (
    "Answer the question from the table alone, with a short phrase in the language of the question, and write it as "
    f"<answer>...</answer>. If the table does not say it, write <answer>{NOT_ANSWERABLE}</answer>."
)


class MarkupReader(Settings):
    """Answers questions about tables in HTML; sees no picture."""

    @abstractmethod
    def answers(self, asked: Sequence[tuple[str, str]]) -> list[Answer]:
        """One answer for each (table in HTML, question), in order; a text of "" is an answer that cannot be used."""


class ExactReader(MarkupReader):
    """Answers the questions that `mmpost.tables.lookup` writes, exactly; needs no language model."""

    def answers(self, asked: Sequence[tuple[str, str]]) -> list[Answer]:
        lookups = {markup: _lookup(markup) for markup in dict.fromkeys(markup for markup, _ in asked)}
        return [Answer(lookups[markup].answer(question)) for markup, question in asked]


def _lookup(markup: str) -> Lookup:
    try:
        return Lookup.of(read_html(markup, strict=False).table) if markup else Lookup((), (), ())
    except DataError:  # too large to read
        return Lookup((), (), ())


class ChatReader(MarkupReader):
    """Asks a language model."""

    backend: ChatBackend
    reasks: int = Field(default=1, ge=0)
    """How many more answers to sample if one is empty, as truncated ones are."""

    def answers(self, asked: Sequence[tuple[str, str]]) -> list[Answer]:
        texts = [f"{INSTRUCTION}\n\nTable:\n{markup}\n\nQuestion: {question}" for markup, question in asked]
        return ask(self.backend, [[{"role": "user", "content": text}] for text in texts], self.reasks)


class PictureReader(Settings):
    """Answers questions about pictures of tables."""

    @abstractmethod
    def answers(self, asked: Sequence[tuple[Sample, str]], *, sees_picture: bool) -> list[Answer]:
        """One answer for each (sample, question), in order; without `sees_picture` from the question alone."""


class StandInReader(PictureReader):
    """Reads the table that a built-in picture was drawn from, with errors: a stand-in for a large model.

    Only for pictures whose markup is known; it shows what a study needs to know, how errors of a reader matter.
    """

    misread: float = Field(default=0.05, ge=0, le=1)
    """Share of the cells that it misreads: one character becomes another of its class."""
    overlooked: float = Field(default=0.0, ge=0, le=1)
    """Share of the cells that it takes for empty."""
    name: str = "reader"
    """Readers of different names misread different cells of a picture."""

    def table(self, sample: Sample) -> Table:
        """The table as it reads it, alike each time. Raises DataError for a sample without a table as truth."""
        table = truth_table(sample)
        if table is None:
            raise DataError(
                f"{sample.label}: by=stand_in reads the table that a picture was drawn from, and the sample has none; "
                "choose by=server or by=local"
            )
        return with_reading_errors(table, random.Random(f"{self.name} {sample.uid}"), self.misread, self.overlooked)

    def answers(self, asked: Sequence[tuple[Sample, str]], *, sees_picture: bool) -> list[Answer]:
        if not sees_picture:
            return [Answer(answer_without_table(question)) for _, question in asked]
        lookups: dict[str, Lookup] = {}
        for sample, _ in asked:
            if sample.uid not in lookups:
                lookups[sample.uid] = Lookup.of(self.table(sample))
        return [Answer(lookups[sample.uid].answer(question)) for sample, question in asked]


class ChatPictureReader(PictureReader):
    """Asks a vision-language model."""

    backend: ChatBackend
    reasks: int = Field(default=1, ge=0)
    """How many more answers to sample if one is empty, as truncated ones are."""

    def answers(self, asked: Sequence[tuple[Sample, str]], *, sees_picture: bool) -> list[Answer]:
        conversations = [
            with_pictures(sample, f"{INSTRUCTION}\n\nQuestion: {question}", sees_picture) for sample, question in asked
        ]
        return ask(self.backend, conversations, self.reasks)


def ask(backend: ChatBackend, conversations: Sequence[Messages], reasks: int) -> list[Answer]:
    """The model's answers without tags. Empty ones are sampled again, up to `reasks` times."""
    answers = [Answer()] * len(conversations)
    pending = list(range(len(conversations)))
    for draw in range(1 + reasks):
        if not pending:
            break
        given = backend.answers([conversations[i] for i in pending], draw)
        for i, answer in zip(pending, given, strict=True):
            answers[i] = answer if answer.failure else Answer(untagged(answer.text))
        pending = [i for i in pending if not answers[i].failure and not answers[i].text]
    return answers


def refuse_failures(wanted: str, failures: Sequence[str]) -> None:
    """Raise TrainError if one of the `failures`, one per request, is not ""; `wanted` is what was asked for."""
    reasons = [failure for failure in failures if failure]
    if reasons:
        raise TrainError(
            f"wanted {wanted}, found {len(reasons)} of {len(failures)} requests failed ({reasons[0]}); check that the "
            "model answers and start again: what it answered is cached"
        )


def untagged(text: str) -> str:
    """What the first answer tags of one line hold, else the whole text, stripped: TRivia's rule."""
    match = _ANSWER.search(text)
    return (match[1] if match else text).strip()


def with_pictures(sample: Sample, text: str, sees_picture: bool) -> list[Mapping[str, Any]]:
    """A conversation of one turn: the sample's images as data URLs, if it `sees_picture`, then `text`."""
    from mmpost.data.media.preview import png

    images: list[dict[str, Any]] = []
    for part in sample.prompt if sees_picture else ():
        if part.modality == "image":
            url = "data:image/png;base64," + base64.b64encode(png(part.value.open())).decode()
            images.append({"type": "image_url", "image_url": {"url": url}})
    if sees_picture and not images:
        raise DataError(f"{sample.label}: wanted a picture to ask about, found none in its prompt; add an image")
    return [{"role": "user", "content": [*images, {"type": "text", "text": text}] if images else text}]
