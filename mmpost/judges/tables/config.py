"""Settings of tasks that learn from questions about tables: who writes and checks them, and who answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mmpost.config.settings import Settings
from mmpost.judges.chat_judge import ChatBackend
from mmpost.judges.local import LocalModel
from mmpost.judges.server import Server
from mmpost.judges.tables.judge import TableQuestions
from mmpost.judges.tables.readers import ChatPictureReader, ChatReader, ExactReader, PictureReader, StandInReader
from mmpost.judges.tables.writers import (
    ChatWriter,
    CheckQuestions,
    DiverseQuestions,
    QuestionWriter,
    StandInWriter,
    WriteQuestions,
)
from mmpost.types import Transform


class ChatModel(Settings):
    """A chat model behind an HTTP API, or one on this machine."""

    server: Server | None = None
    """Settings for by=server."""
    local: LocalModel | None = None
    """Settings for by=local."""
    reasks: int = Field(default=1, ge=0)
    """How many more answers to sample if one is empty, as truncated ones are. A writer of questions is asked in passes
    instead."""

    def backend(self, by: str) -> ChatBackend:
        """The model that `by` names. Raises ValueError if its section is missing."""
        backend = {"server": self.server, "local": self.local}[by]
        if backend is None:
            needed = {"server": "url and model", "local": "model"}[by]
            raise ValueError(f"by={by}: wanted the section {by} with {needed}, found none")
        return backend


class AnswerModel(ChatModel):
    """The model that answers questions from a recognised table; it sees no picture."""

    by: Literal["exact", "server", "local"] = "exact"
    """An exact reader of the questions that the stand-in writes, a model behind an HTTP API, or one on this machine."""
    f1: Literal["token", "char_bag"] = "token"
    """How answers are compared: by words, numbers as a whole; or by the bag of their characters, as TRivia's code does,
    so that 63 is right for 36."""

    @model_validator(mode="after")
    def _complete(self) -> AnswerModel:
        if self.by != "exact":
            self.backend(self.by)
        return self

    def judge(self) -> TableQuestions:
        """The judge of recognised tables. Loads no model and sends no request yet."""
        exact = self.by == "exact"
        reader = ExactReader() if exact else ChatReader(backend=self.backend(self.by), reasks=self.reasks)
        return TableQuestions(reader=reader, f1=self.f1)


class PictureModel(ChatModel):
    """A model that looks at pictures of tables."""

    by: Literal["stand_in", "server", "local"] = "stand_in"
    """A stand-in that reads the table a built-in picture was drawn from, a vision-language model behind an HTTP API, or
    one on this machine."""
    misread: float = Field(default=0.05, ge=0, le=1)
    """Share of the cells that the stand-in misreads."""
    overlooked: float = Field(default=0.0, ge=0, le=1)
    """Share of the cells that the stand-in takes for empty."""

    @model_validator(mode="after")
    def _complete(self) -> PictureModel:
        if self.by != "stand_in":
            self.backend(self.by)
        return self

    def stand_in(self, name: str) -> StandInReader:
        """The stand-in as a reader of this name."""
        return StandInReader(misread=self.misread, overlooked=self.overlooked, name=name)

    def reader(self, name: str) -> PictureReader:
        """The model as a reader of this name. Loads no model and sends no request yet."""
        if self.by == "stand_in":
            return self.stand_in(name)
        return ChatPictureReader(backend=self.backend(self.by), reasks=self.reasks)

    def note(self, role: str) -> str:
        """What readers of a result must know; empty for a real model."""
        if self.by != "stand_in":
            return ""
        return (
            f"{role} a stand-in for a large model: it reads the table that the picture was drawn from, misreads "
            f"{100 * self.misread:g} % of the cells and overlooks {100 * self.overlooked:g} %"
        )


class QuestionModels(Settings):
    """How questions about pictures come about (TRivia, arXiv 2512.01248)."""

    writer: PictureModel = PictureModel()
    """Writes candidates: 72B parameters in the paper."""
    candidates: int = Field(default=24, ge=1)
    """Questions per picture that the stand-in writes, and that a model is asked for in each pass."""
    passes: int = Field(default=4, ge=1)
    """How often a chat model is shown each picture."""
    checker: PictureModel | None = PictureModel()
    """Keeps what it answers alike with the picture and not without: 78B parameters of another family in the paper. null
    keeps all."""
    agreement: float = Field(default=1.0, gt=0, le=1)
    """Least token F1 of two answers that agree."""
    diverse: DiverseQuestions | None = DiverseQuestions()
    """Which questions are kept, by what the model under training attends to in the picture; null keeps all."""

    def transforms(self) -> tuple[Transform, ...]:
        """The steps of a data-generation stage; its samples have questions for replies."""
        model = self.writer
        writer: QuestionWriter
        if model.by == "stand_in":
            writer = StandInWriter(reader=model.stand_in("writer"), n=self.candidates)
        else:
            writer = ChatWriter(backend=model.backend(model.by), n=self.candidates, passes=self.passes)
        steps: list[Transform] = [WriteQuestions(writer=writer)]
        if self.checker is not None:
            steps.append(CheckQuestions(reader=self.checker.reader("checker"), agreement=self.agreement))
        if self.diverse is not None:
            steps.append(self.diverse)
        return tuple(steps)

    def notes(self) -> tuple[str, ...]:
        """What readers of a result must know."""
        checker = "" if self.checker is None else self.checker.note("questions are checked by")
        return tuple(note for note in (self.writer.note("questions are written by"), checker) if note)
