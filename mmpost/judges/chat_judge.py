"""A judge that asks a chat model: a form of question, and a model that answers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from mmpost.config.settings import Settings
from mmpost.judges.answer_cache import Messages
from mmpost.judges.base import Judge, Pair, Verdict, length_controlled


@dataclass(frozen=True)
class Answer:
    """What a model said, or why it said nothing."""

    text: str = ""
    failure: str = ""
    """Why there is no answer, after all attempts; empty where there is one."""


class Answering(Settings):
    """Something that answers conversations."""

    @abstractmethod
    def answers(self, conversations: Sequence[Messages], draw: int) -> list[Answer]:
        """One answer to each, in their order; another `draw` asks for another answer to the same question."""


class Form(Settings):
    """How a model is asked, and how its answer is read."""

    @abstractmethod
    def messages(self, pair: Pair) -> Messages: ...

    @abstractmethod
    def read(self, said: str) -> Verdict:
        """The verdict in an answer; one with problem "unparseable" where the answer has not the agreed form."""


class AskedJudge(Judge):
    """Asks a model about all pairs at once. An answer without the agreed form is asked for again, then left out.

    What had no answer at all is "failed" and what could not be read "unparseable"; neither has a score.
    """

    form: Form
    model: Answering
    reasks: int = Field(default=1, ge=0)
    """Further answers that are asked for where one cannot be read."""
    length_control: bool = False
    """Divide by how many times longer than the reference the candidate is (LC-GREEN)."""

    def judge(self, pairs: Sequence[Pair | tuple[str, str]]) -> list[Verdict]:
        whole = [Pair(*pair) for pair in pairs]
        verdicts: list[Verdict] = [Verdict(None, "unparseable")] * len(whole)
        open_ = list(range(len(whole)))
        for draw in range(1 + self.reasks):
            answers = self.model.answers([self.form.messages(whole[i]) for i in open_], draw) if open_ else []
            for i, answer in zip(open_, answers, strict=True):
                verdicts[i] = (
                    Verdict(None, "failed", said=answer.failure) if answer.failure else self.form.read(answer.text)
                )
            open_ = [i for i in open_ if verdicts[i].problem == "unparseable"]
        if self.length_control:
            return [self._shorter(pair, verdict) for pair, verdict in zip(whole, verdicts, strict=True)]
        return verdicts

    @staticmethod
    def _shorter(pair: Pair, verdict: Verdict) -> Verdict:
        if verdict.score is None:
            return verdict
        return Verdict(length_controlled(verdict.score, pair), "", verdict.counts, verdict.said)
