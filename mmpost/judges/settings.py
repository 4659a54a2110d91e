"""The `judge` section of a task of any domain: which model judges, and its settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mmpost.config.settings import Settings
from mmpost.judges.base import Judge
from mmpost.judges.bertscore import BertScore
from mmpost.judges.chat_judge import ChatJudge, JudgePrompt
from mmpost.judges.grade import Grade
from mmpost.judges.local import LocalModel
from mmpost.judges.server import Server


class JudgeSettings(Settings):
    """Selects and configures the model that scores replies: a chat model that answers a question, or BERTScore.

    A domain asks its own question with a subclass that has another default of `grade`, or that overrides
    `chat_prompt`; a judge of its own is one more value of `by`.
    """

    by: Literal["server", "local", "bertscore"] = "server"
    """A chat model behind an HTTP API, one on this machine, or BERTScore."""
    reasks: int = Field(default=1, ge=0)
    """How many more answers to sample from a chat model if one cannot be parsed."""
    length_control: bool = False
    """Divide the score by candidate words / reference words if that is more than 1."""
    grade: Grade = Grade()
    """The question to a chat model, answered with a number."""
    server: Server | None = None
    """Settings for by=server."""
    local: LocalModel | None = None
    """Settings for by=local."""
    bertscore: BertScore | None = None
    """Settings for by=bertscore."""

    @model_validator(mode="after")
    def _complete(self) -> JudgeSettings:
        required = {"server": "url and model", "local": "model", "bertscore": "model"}
        if self.by in required and getattr(self, self.by) is None:
            raise ValueError(f"by={self.by}: wanted the section {self.by} with {required[self.by]}, found none")
        if self.by == "bertscore" and self.length_control:
            raise ValueError("length_control divides a score that counts, which by=bertscore is not; remove it")
        return self

    def chat_prompt(self) -> JudgePrompt:
        """The prompt for a chat model."""
        return self.grade

    def judge(self) -> Judge:
        """The configured judge. Loads no model and sends no request yet."""
        if self.by == "bertscore":
            assert self.bertscore is not None
            return self.bertscore
        backend = self.server if self.by == "server" else self.local
        assert backend is not None
        return ChatJudge(
            prompt=self.chat_prompt(), backend=backend, reasks=self.reasks, length_control=self.length_control
        )
