"""A judge that asks a chat model: `JudgePrompt` writes the prompt and parses replies, `ChatBackend` runs the model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import Field

from mmpost.config.settings import Settings
from mmpost.judges.answer_cache import Messages
from mmpost.judges.base import Judge, Pair, Verdict, length_controlled


@dataclass(frozen=True)
class Answer:
    """A chat model's reply, or the reason why there is none."""

    text: str = ""
    failure: str = ""
    """Why all attempts failed; empty if there is an answer."""


class ChatBackend(Settings):
    """A chat model that answers conversations."""

    @abstractmethod
    def answers(self, conversations: Sequence[Messages], draw: int) -> list[Answer]:
        """One answer per conversation, in order. Each `draw` (0, 1, ...) samples another answer to the same question;
        draw 0 is the one to use first.
        """


class JudgePrompt(Settings):
    """How to ask a chat model for a judgment, and how to parse its reply."""

    @abstractmethod
    def messages(self, pair: Pair) -> Messages:
        """The conversation that asks the model to judge `pair`."""

    @abstractmethod
    def parse(self, reply: str) -> Verdict:
        """The verdict in a model's reply; its problem is "unparseable" if the reply does not follow the format."""


class ChatJudge(Judge):
    """Judges with a chat model, all pairs at once.

    A reply that cannot be parsed is sampled again, up to `reasks` times. After that the verdict is "unparseable"; a
    request that got no reply at all is "failed". Neither has a score.
    """

    prompt: JudgePrompt
    backend: ChatBackend
    reasks: int = Field(default=1, ge=0)
    """How many more answers to sample if one cannot be parsed."""
    length_control: bool = False
    """Divide the score by candidate words / reference words if that is more than 1."""

    def judge(self, pairs: Sequence[Pair | tuple[str, str]]) -> list[Verdict]:
        pairs = [Pair(*pair) for pair in pairs]
        verdicts: list[Verdict] = [Verdict(None, "unparseable")] * len(pairs)
        pending = list(range(len(pairs)))
        for draw in range(1 + self.reasks):
            answers = self.backend.answers([self.prompt.messages(pairs[i]) for i in pending], draw) if pending else []
            for i, answer in zip(pending, answers, strict=True):
                verdicts[i] = (
                    Verdict(None, "failed", raw_reply=answer.failure)
                    if answer.failure
                    else self.prompt.parse(answer.text)
                )
            pending = [i for i in pending if verdicts[i].problem == "unparseable"]
        if not self.length_control:
            return verdicts
        return [
            verdict if verdict.score is None else replace(verdict, score=length_controlled(verdict.score, pair))
            for pair, verdict in zip(pairs, verdicts, strict=True)
        ]
