"""The `judge` section of a task that writes radiology reports: rules or GREEN, besides what every domain has."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from mmpost.judges.base import Judge
from mmpost.judges.chat_judge import JudgePrompt
from mmpost.judges.radiology.green import Green
from mmpost.judges.radiology.rules import RuleJudge
from mmpost.judges.settings import JudgeSettings


class ReportJudgeSettings(JudgeSettings):
    """Selects and configures the judge that scores reports."""

    by: Literal["rules", "server", "local", "bertscore"] = "rules"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Rules for chest X-ray reports, a chat model behind an HTTP API, one on this machine, or BERTScore."""
    form: Literal["green", "grade"] = "green"
    """The prompt for a chat model: GREEN's list of errors, or a custom question that is answered with a number."""
    length_control: bool = False
    """LC-GREEN: divide the score by candidate words / reference words if that is more than 1."""
    rules: RuleJudge = RuleJudge()
    """Settings for by=rules."""
    green: Green = Green()
    """Settings for form=green."""

    @model_validator(mode="after")
    def _chat_settings(self) -> ReportJudgeSettings:
        if self.by in ("rules", "bertscore") and (self.form != "green" or self.reasks != 1):
            raise ValueError(f"form and reasks apply to chat models only, found by={self.by}; remove them")
        return self

    def chat_prompt(self) -> JudgePrompt:
        return self.green if self.form == "green" else self.grade

    def judge(self) -> Judge:
        if self.by == "rules":
            return self.rules.model_copy(update={"length_control": self.rules.length_control or self.length_control})
        return super().judge()
