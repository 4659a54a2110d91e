"""A custom question to a chat model, answered with a number; works for any task."""

from __future__ import annotations

import re
import string

from pydantic import field_validator, model_validator

from mmpost.judges.answer_cache import Messages
from mmpost.judges.base import Pair, Verdict
from mmpost.judges.chat_judge import JudgePrompt

_FIELDS = frozenset(Pair._fields)


class Grade(JudgePrompt):
    """The last number after `mark` in the reply, mapped linearly from [low, high] to [0, 1].

    A reply without a number, or with one outside the range, is unparseable.
    """

    prompt: str = (
        "Question: {question}\nRight answer: {reference}\nAnswer: {candidate}\n"
        "How well does the answer agree with the right one? End with: Score: n, a number from 0 to 10."
    )
    """The question; {question}, {reference} and {candidate} are replaced by the texts."""
    system: str = ""
    """An optional system message."""
    mark: str = "Score:"
    """The text that precedes the number in the reply."""
    low: float = 0.0
    """The worst number."""
    high: float = 10.0
    """The best number."""

    @field_validator("prompt")
    @classmethod
    def _known_placeholders(cls, value: str) -> str:
        placeholders = {name for _, name, _, _ in string.Formatter().parse(value) if name is not None}
        if not placeholders <= _FIELDS or "candidate" not in placeholders:
            raise ValueError(
                f"wanted {{candidate}} and no placeholders besides {sorted(_FIELDS)}, found {sorted(placeholders)}"
            )
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Grade:
        if self.low >= self.high:
            raise ValueError(f"low={self.low} must be less than high={self.high}")
        return self

    def messages(self, pair: Pair) -> Messages:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.prompt.format(**pair._asdict())}]

    def parse(self, reply: str) -> Verdict:
        numbers = re.findall(rf"{re.escape(self.mark)}[ \t*]*(-?\d+(?:\.\d+)?)", reply, re.IGNORECASE)
        if not numbers or not self.low <= float(numbers[-1]) <= self.high:
            return Verdict(None, "unparseable", raw_reply=reply)
        return Verdict((float(numbers[-1]) - self.low) / (self.high - self.low), raw_reply=reply)
