"""The `judge` section of a task: which judge to use, and its settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mmpost.config.settings import Settings
from mmpost.judges.base import Judge
from mmpost.judges.bertscore import BertScore
from mmpost.judges.chat_judge import ChatJudge
from mmpost.judges.grade import Grade
from mmpost.judges.local import LocalModel
from mmpost.judges.radiology.green import Green
from mmpost.judges.radiology.rules import RuleJudge
from mmpost.judges.server import Server


class JudgeSettings(Settings):
    """Selects and configures the judge that scores replies."""

    by: Literal["rules", "server", "local", "bertscore"] = "rules"
    """Rules for chest X-ray reports, a chat model behind an HTTP API, one on this machine, or BERTScore."""
    form: Literal["green", "grade"] = "green"
    """The prompt for a chat model: GREEN's list of errors, or a custom question that is answered with a number."""
    reasks: int = Field(default=1, ge=0)
    """How many more answers to sample from a chat model if one cannot be parsed."""
    length_control: bool = False
    """LC-GREEN: divide the score by candidate words / reference words if that is more than 1."""
    rules: RuleJudge = RuleJudge()
    """Settings for by=rules."""
    green: Green = Green()
    """Settings for form=green."""
    grade: Grade = Grade()
    """Settings for form=grade."""
    server: Server | None = None
    """Settings for by=server."""
    local: LocalModel | None = None
    """Settings for by=local."""
    bertscore: BertScore | None = None
    """Settings for by=bertscore."""

    @model_validator(mode="after")
    def _complete(self) -> JudgeSettings:
        if self.by != "rules" and getattr(self, self.by) is None:
            required = {"server": "url and model", "local": "model", "bertscore": "model"}[self.by]
            raise ValueError(f"by={self.by}: wanted the section {self.by} with {required}, found none")
        if self.by == "bertscore" and self.length_control:
            raise ValueError(
                "length_control divides a score that counts findings, which by=bertscore is not; remove it"
            )
        if self.by in ("rules", "bertscore") and (self.form != "green" or self.reasks != 1):
            raise ValueError(f"form and reasks apply to chat models only, found by={self.by}; remove them")
        return self

    def judge(self) -> Judge:
        """The configured judge. Loads no model and sends no request yet."""
        if self.by == "rules":
            return self.rules.model_copy(update={"length_control": self.rules.length_control or self.length_control})
        if self.by == "bertscore":
            assert self.bertscore is not None
            return self.bertscore
        backend = self.server if self.by == "server" else self.local
        assert backend is not None
        prompt = self.green if self.form == "green" else self.grade
        return ChatJudge(prompt=prompt, backend=backend, reasks=self.reasks, length_control=self.length_control)
