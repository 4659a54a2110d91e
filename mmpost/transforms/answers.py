"""Replies that are not sampled: from the data, or made from the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from mmpost.settings import Settings
from mmpost.types import Context, Reply, Sample


class Encode(Settings):
    """Give the data's own replies their tokens, as the model would have written them."""

    makes: ClassVar[tuple[str, ...]] = ()

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return [replace(s, replies=tuple(self._tokens(r, context) for r in s.replies)) for s in samples]

    def _tokens(self, reply: Reply, context: Context) -> Reply:
        if reply.token_ids is not None:
            return reply
        return replace(reply, token_ids=context.reply(reply.text, reply.origin).token_ids)


class PromptOnly(Settings):
    """Drop the data's own replies, so that groups hold rollouts alone."""

    makes: ClassVar[tuple[str, ...]] = ()

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return [replace(s, replies=()) for s in samples]


class Answer(Settings):
    """One reply to each sample, written from its truth; a sample without usable truth is dropped and counted."""

    makes: ClassVar[tuple[str, ...]] = ()

    text: Callable[[Sample], str | None]
    """The reply to learn."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        out = []
        for sample in samples:
            text = self.text(sample)
            context.log("answer/missing", float(text is None))
            if text is not None:
                out.append(replace(sample, replies=(context.reply(text, "data"),)))
        return out
