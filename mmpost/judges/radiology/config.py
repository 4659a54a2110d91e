"""The `judge` section of a task: which judge, and its settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mmpost.config.settings import Settings
from mmpost.judges.base import Judge
from mmpost.judges.bertscore import BertScore
from mmpost.judges.chat_judge import AskedJudge
from mmpost.judges.grade import Grade
from mmpost.judges.local import LocalModel
from mmpost.judges.radiology.green import Green
from mmpost.judges.radiology.rules import RuleJudge
from mmpost.judges.server import Server


class JudgeSettings(Settings):
    """Who scores replies."""

    by: Literal["rules", "server", "local", "bertscore"] = "rules"
    """Rules for chest X-ray reports, a chat model behind HTTP, one on this machine, or likeness of embeddings."""
    form: Literal["green", "grade"] = "green"
    """What a chat model is asked: GREEN's list of errors, or a question of your own for a number."""
    reasks: int = Field(default=1, ge=0)
    """Further answers of a chat model that are asked for where one cannot be read."""
    length_control: bool = False
    """Divide a report's score by how many times longer than its reference it is, if it is longer (LC-GREEN)."""
    rules: RuleJudge = RuleJudge()
    """Settings of the rules."""
    green: Green = Green()
    """Settings of GREEN's question."""
    grade: Grade = Grade()
    """Your own question."""
    server: Server | None = None
    """Where the chat model is, by=server."""
    local: LocalModel | None = None
    """Which chat model it is, by=local."""
    bertscore: BertScore | None = None
    """Which encoder it is, by=bertscore."""

    @model_validator(mode="after")
    def _complete(self) -> JudgeSettings:
        if self.by != "rules" and getattr(self, self.by) is None:
            first = {"server": "url and model", "local": "model", "bertscore": "model"}[self.by]
            raise ValueError(f"by={self.by} wants the section {self.by} with {first}")
        if self.by == "bertscore" and self.length_control:
            raise ValueError("length_control divides a count of findings, and by=bertscore has none; drop it")
        if self.by in ("rules", "bertscore") and (self.form != "green" or self.reasks != 1):
            raise ValueError(f"form and reasks are about chat models, found by={self.by}; drop them")
        return self

    def judge(self) -> Judge:
        """The judge that is set; nothing is loaded or reached yet."""
        if self.by == "rules":
            return self.rules.model_copy(update={"length_control": self.rules.length_control or self.length_control})
        if self.by == "bertscore":
            assert self.bertscore is not None
            return self.bertscore
        model = self.server if self.by == "server" else self.local
        assert model is not None
        form = self.green if self.form == "green" else self.grade
        return AskedJudge(form=form, model=model, reasks=self.reasks, length_control=self.length_control)
