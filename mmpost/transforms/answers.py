"""Replies that are not sampled: from the data, or made from the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from mmpost.config.settings import Settings
from mmpost.errors import DataError
from mmpost.types import Context, Reply, Sample, Transform


class EncodeReplies(Transform, Settings):
    """Give the data's own replies their tokens, as the model would have written them.

    Of a preference only the preferred replies stay (column `label` not negative). Raises DataError for a sample
    without a reply to learn.
    """

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        out = []
        for sample in samples:
            good = [r for r in sample.replies if float(cast(float, r.columns.get("label", 1.0))) >= 0]
            if not good:
                raise DataError(
                    f"{sample.uid}: wanted a reply to learn, found a prompt alone; give the row an assistant's turn "
                    "(or `response`), or choose a task that samples its replies"
                )
            out.append(replace(sample, replies=tuple(self._tokens(r, context) for r in good)))
        return out

    def _tokens(self, reply: Reply, context: Context) -> Reply:
        if reply.token_ids is not None:
            return reply
        return replace(reply, token_ids=context.encode_reply(reply.text, reply.origin).token_ids)


class DropReplies(Transform, Settings):
    """Drop the data's own replies, so that groups hold rollouts alone."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return [replace(s, replies=()) for s in samples]


class ReplyFromTruth(Transform, Settings):
    """One reply to each sample, written from its truth; a sample without usable truth is dropped and counted."""

    text: Callable[[Sample], str | None]
    """The reply to learn."""

    def gold_text(self) -> Callable[[Sample], str | None]:
        return self.text

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        out = []
        for sample in samples:
            text = self.text(sample)
            context.log("answer/missing", float(text is None))
            if text is not None:
                out.append(replace(sample, replies=(context.encode_reply(text, "data"),)))
        return out


def answer_with_short_thought(sample: Sample) -> str:
    """The truth in answer tags, after a minimal thought: the simplest reply that satisfies `think_format`."""
    return f"<think>look</think><answer>{sample.truth}</answer>"
