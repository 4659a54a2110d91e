"""Questions about pictures of tables, written by a model that sees the picture: candidates, validity, diversity.

The three steps of TRivia (arXiv 2512.01248) are transforms of a data-generation stage. Between them, and in what the
stage records, each question with its answer is a reply of the sample, as JSON.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field

from mmpost.config.settings import Settings
from mmpost.errors import DataError
from mmpost.judges.chat_judge import Answer, ChatBackend
from mmpost.judges.tables.readers import PictureReader, StandInReader, refuse_failures, untagged, with_pictures
from mmpost.tables.lookup import KINDS, write_questions
from mmpost.tables.questions import NOT_ANSWERABLE, Question, question_pairs, token_f1
from mmpost.types import Context, Part, Reply, Sample, Transform

INSTRUCTION = """Write {n} questions about the table in the picture, each with its answer.
Ask about single cells, rows, columns, counts and comparisons, and about all parts of the table. A question must name \
the rows and columns that it means, have one answer that the table alone gives, and not be answerable without it. \
Answers are short phrases, written as in the table.
Reply with a JSON list and nothing else: [{{"question": "...", "answer": "..."}}, ...]"""

MAX_BRACKETS = 20
"""How many opening brackets of a reply may begin its list."""


class Candidates(NamedTuple):
    """The questions about a picture, and why a request for more failed, if one did."""

    questions: tuple[Question, ...] = ()
    failure: str = ""


class QuestionWriter(Settings):
    """Writes questions about pictures of tables."""

    @abstractmethod
    def write(self, samples: Sequence[Sample]) -> list[Candidates]:
        """Candidate questions about each sample's picture, in order."""


class StandInWriter(QuestionWriter):
    """Writes exact questions about the table that a built-in picture was drawn from, as `reader` reads it.

    A stand-in for a large model: its errors and omissions are known, and may be set.
    """

    reader: StandInReader = StandInReader(name="writer")
    """How it reads the picture."""
    n: int = Field(default=24, ge=1)
    """Candidates per picture."""

    def write(self, samples: Sequence[Sample]) -> list[Candidates]:
        candidates = []
        for sample in samples:
            rng = random.Random(f"questions {self.reader.name} {sample.uid}")
            candidates.append(Candidates(tuple(write_questions(self.reader.table(sample), self.n, rng, KINDS))))
        return candidates


class ChatWriter(QuestionWriter):
    """Asks a vision-language model, several times per picture."""

    backend: ChatBackend
    n: int = Field(default=20, ge=1)
    """Questions to ask for in each pass."""
    passes: int = Field(default=4, ge=1)
    """How often each picture is shown; the passes after the first are sampled."""

    def write(self, samples: Sequence[Sample]) -> list[Candidates]:
        conversations = [with_pictures(sample, INSTRUCTION.format(n=self.n), sees_picture=True) for sample in samples]
        found: list[dict[str, Question]] = [{} for _ in samples]
        failures = [""] * len(samples)
        for draw in range(self.passes):
            for i, answer in enumerate(self.backend.answers(conversations, draw)):
                failures[i] = failures[i] or answer.failure
                for question in _parsed(answer):
                    found[i].setdefault(question.question, question)
        return [
            Candidates(tuple(questions.values()), failure) for questions, failure in zip(found, failures, strict=True)
        ]


def _parsed(answer: Answer) -> list[Question]:
    """The well-formed questions of the first JSON list in a reply that holds any."""
    decoder = json.JSONDecoder()
    for bracket in itertools.islice(re.finditer(r"\[", answer.text), MAX_BRACKETS):
        try:
            value, _ = decoder.raw_decode(answer.text, bracket.start())
        except (ValueError, RecursionError):
            continue
        questions: list[Question] = []
        for pair in value:
            with suppress(DataError):
                questions += question_pairs([pair])
        if questions:
            return questions
    return []


class WriteQuestions(Transform, Settings):
    """Replaces a sample's replies by candidate questions.

    Samples about which the writer has none are dropped; logs their fraction as questions/missing. Raises TrainError if
    a request failed. Answers of a server are cached, so that starting again does not pay for them twice.
    """

    writer: QuestionWriter
    """Who writes them."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        candidates = self.writer.write(samples)
        refuse_failures("questions about pictures", [each.failure for each in candidates])
        for each in candidates:
            context.log("questions/missing", float(not each.questions))
        return [
            with_questions(sample, each.questions)
            for sample, each in zip(samples, candidates, strict=True)
            if each.questions
        ]


class CheckQuestions(Transform, Settings):
    """Keeps the questions that a second reader answers alike with the picture, and not without it.

    Answers agree if their token F1 is at least `agreement`. Samples without a question left are dropped. Raises
    TrainError where the reader gives no answer.
    """

    reader: PictureReader
    """Who answers; TRivia takes a model of another family than the writer's."""
    agreement: float = Field(default=1.0, gt=0, le=1)
    """Least F1 of two answers that agree."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        pairs = [(sample, question) for sample in samples for question in questions_of(sample)]
        asked = [(sample, question.question) for sample, question in pairs]
        seeing = self.reader.answers(asked, sees_picture=True) if asked else []
        blind = self.reader.answers(asked, sees_picture=False) if asked else []
        refuse_failures("answers to questions", [answer.failure for answer in (*seeing, *blind)])
        valid = iter(
            self._agrees(see, question) and not self._agrees(guess, question)
            for (_, question), see, guess in zip(pairs, seeing, blind, strict=True)
        )
        kept = []
        for sample in samples:
            verdicts = [(question, next(valid)) for question in questions_of(sample)]
            for _, is_valid in verdicts:
                context.log("questions/valid", float(is_valid))
            kept.append(with_questions(sample, [question for question, is_valid in verdicts if is_valid]))
        return [sample for sample in kept if sample.replies]

    def _agrees(self, answer: Answer, question: Question) -> bool:
        text = untagged(answer.text)
        matches = token_f1(text, untagged(question.answer)) >= self.agreement
        return matches and NOT_ANSWERABLE not in text.lower()


class DiverseQuestions(Transform, Settings):
    """Keeps the questions whose answers lie in different places of the picture.

    The visual source of a question is the set of visual tokens that its answer's tokens attend to more than `above`
    times as much as to a token on average, in the model that is trained. Beginning with the largest source, the
    question is added whose source overlaps least with those chosen (the maximum of the IoUs), until there are `n`, or
    each of the others overlaps more than `overlap`. Samples without questions are dropped.
    """

    n: int = Field(default=30, ge=1)
    """Questions kept per picture."""
    above: float = Field(default=2.0, gt=0)
    """Least attention of a token of the source, as a multiple of the mean over the picture."""
    overlap: float = Field(default=0.5, ge=0, le=1)
    """Largest IoU of a source with one chosen before."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        kept = []
        for sample in samples:
            questions = questions_of(sample)
            asking = [_asking(sample, question, context) for question in questions]
            # Without the end of the turn, which is no part of the answer.
            maps = [np.asarray(attention[0])[:-1] for attention in context.attention(asking)] if asking else []
            chosen = diverse([visual_source(attention, self.above) for attention in maps], self.n, self.overlap)
            kept.append(with_questions(sample, [questions[i] for i in sorted(chosen)]))
        return [sample for sample in kept if sample.replies]


def _asking(sample: Sample, question: Question, context: Context) -> Sample:
    """The picture and the question as the prompt, the answer as the reply."""
    pictures = tuple(part for part in sample.prompt if part.modality != "text")
    reply = context.encode_reply(question.answer, "data")
    return replace(sample, prompt=(*pictures, Part("text", question.question)), replies=(reply,))


def visual_source(attention: Float[np.ndarray, "tok visual"], above: float) -> Bool[np.ndarray, " visual"]:
    """The visual tokens whose attention, a mean over the answer's tokens, is above `above` times their mean."""
    received = attention.mean(0)
    return received > above * received.mean()


def diverse(sources: Sequence[Bool[np.ndarray, " visual"]], n: int, overlap: float) -> list[int]:
    """The questions to keep, in the order of choice; ties go to the first. See `DiverseQuestions`."""
    if not sources:
        return []
    tokens = np.stack(sources).astype(int)
    sizes, common = tokens.sum(1), tokens @ tokens.T
    union = sizes[:, None] + sizes[None] - common
    # Two empty sources say nothing about where the answers lie: they count as the same place.
    iou = np.where(union > 0, common / np.maximum(union, 1), 1.0)
    chosen = [int(sizes.argmax())]
    while len(chosen) < min(n, len(sources)):
        nearest = iou[:, chosen].max(1)
        nearest[chosen] = np.inf
        best = int(nearest.argmin())
        if nearest[best] > overlap:
            break
        chosen.append(best)
    return chosen


def with_questions(sample: Sample, questions: Sequence[Question]) -> Sample:
    """The sample with these questions in place of its replies."""
    texts = (json.dumps(question._asdict(), ensure_ascii=False) for question in questions)
    return replace(sample, replies=tuple(Reply((Part("text", text, "assistant"),)) for text in texts))


def questions_of(sample: Sample) -> list[Question]:
    """The questions that `with_questions` wrote."""
    return [Question(**json.loads(reply.text)) for reply in sample.replies]
