"""A question of one's own to a chat model, answered by a number: for any task."""

from __future__ import annotations

import re
import string

from pydantic import field_validator, model_validator

from mmpost.judges.answer_cache import Messages
from mmpost.judges.base import Pair, Verdict
from mmpost.judges.chat_judge import Form

_FIELDS = frozenset(Pair._fields)


class Grade(Form):
    """The answer's last number behind `mark`, from `low` to `high`, as a score from 0 to 1.

    A number outside the range is unparseable, and so is an answer without one.
    """

    prompt: str = (
        "Question: {question}\nRight answer: {reference}\nAnswer: {candidate}\n"
        "How well does the answer agree with the right one? End with: Score: n, a number from 0 to 10."
    )
    """What is asked; {question}, {reference} and {candidate} stand for their texts."""
    system: str = ""
    """A system message before it."""
    mark: str = "Score:"
    """What the number stands behind."""
    low: float = 0.0
    """The worst number."""
    high: float = 10.0
    """The best one."""

    @field_validator("prompt")
    @classmethod
    def _known(cls, value: str) -> str:
        named = {name for _, name, _, _ in string.Formatter().parse(value) if name is not None}
        if not named <= _FIELDS or "candidate" not in named:
            raise ValueError(f"{{candidate}} is wanted, and {sorted(_FIELDS)} at most, found {sorted(named)}")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Grade:
        if self.low >= self.high:
            raise ValueError(f"low={self.low} must be less than high={self.high}")
        return self

    def messages(self, pair: Pair) -> Messages:
        first = [{"role": "system", "content": self.system}] if self.system else []
        return [*first, {"role": "user", "content": self.prompt.format(**pair._asdict())}]

    def read(self, said: str) -> Verdict:
        found = re.findall(rf"{re.escape(self.mark)}[ \t*]*(-?\d+(?:\.\d+)?)", said, re.IGNORECASE)
        if not found or not self.low <= float(found[-1]) <= self.high:
            return Verdict(None, "unparseable", said=said)
        return Verdict((float(found[-1]) - self.low) / (self.high - self.low), said=said)
