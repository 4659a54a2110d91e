"""Replies that are not sampled: those that come with the data, and those written from the ground truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from mmpost.config.settings import Settings
from mmpost.errors import DataError
from mmpost.types import Context, Reply, Sample, Transform


class EncodeReplies(Transform, Settings):
    """Tokenize the replies that come with the data, as assistant turns in the model's own format.

    Of preference data, only the preferred replies are kept (column `label` not negative). Raises DataError for a
    sample without a reply to learn from.
    """

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        out = []
        for sample in samples:
            preferred = [r for r in sample.replies if float(cast(float, r.columns.get("label", 1.0))) >= 0]
            if not preferred:
                raise DataError(
                    f"{sample.uid}: wanted a reply to learn from, found only a prompt; give the row an assistant turn "
                    "(or `response`), or choose a task that samples its replies"
                )
            out.append(replace(sample, replies=tuple(with_token_ids(r, context) for r in preferred)))
        return out


class DropReplies(Transform, Settings):
    """Drop the replies that come with the data, so that groups consist of rollouts only."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return [replace(s, replies=()) for s in samples]


class ReplyFromTruth(Transform, Settings):
    """Replace each sample's replies by one written from its truth; samples without usable truth are dropped.

    Logs the fraction of dropped samples as "truth/missing".
    """

    text: Callable[[Sample], str | None]
    """Writes the reply to learn; None where the sample has no usable truth."""

    def gold_text(self) -> Callable[[Sample], str | None]:
        return self.text

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        out = []
        for sample in samples:
            text = self.text(sample)
            context.log("truth/missing", float(text is None))
            if text is not None:
                out.append(replace(sample, replies=(context.encode_reply(text, "data"),)))
        return out


def answer_with_short_thought(sample: Sample) -> str:
    """The truth in answer tags, after a minimal thought: the simplest reply that satisfies `think_format`."""
    return f"<think>look</think><answer>{sample.truth}</answer>"


def with_token_ids(reply: Reply, context: Context) -> Reply:
    """The reply, tokenized by the model unless it has token ids already."""
    if reply.token_ids is not None:
        return reply
    return replace(reply, token_ids=context.encode_reply(reply.text, reply.origin).token_ids)
