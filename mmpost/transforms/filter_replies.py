"""Which sampled replies a group keeps, before any of them is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log
from typing import cast

from pydantic import Field

from mmpost.config.settings import Settings
from mmpost.errors import ConfigError
from mmpost.types import Context, Reply, Reward, Sample, Transform


class ReplyFilter(Settings):
    """How a group is filled where some of its replies are illegal."""

    oversample: float = Field(default=1.0, ge=1)
    """Replies to sample for each to keep, rounded up."""
    refill: bool = False
    """Fill groups with illegal replies rather than train on smaller ones."""
    certain_tail: int = Field(default=0, ge=0)
    """A reply is a loop, thus illegal, if it has so many tokens and each of the last so many was sampled with a
    probability above `certain_above`; 0: not tested. The original code also refuses shorter replies without doubts."""
    certain_above: float = Field(default=0.99, gt=0, lt=1)
    """See `certain_tail`."""


class FilterReplies(Transform, ReplyFilter):
    """Keeps the first `n` sampled replies of each sample that are legal, in the order in which they were sampled.

    TRivia's filter of illegal samples (arXiv 2512.01248): replies that ended in the middle, or in a loop, earn nothing
    and drag the mean of their group down, so that mediocre replies get a positive advantage. The original code tests
    one of the two, at will; here a reply is legal if it passes both. With `refill`, illegal replies fill a group up to
    `n`, in order (the original refill leaves out replies equal to one of the group). Without, samples whose replies are
    all illegal are dropped. Replies of another origin stay. Logs the fraction of illegal replies as filter/illegal, of
    dropped samples as filter/dropped, and the mean number of replies kept as filter/kept. `oversample` is for the stage
    that samples them (`rl_stage`).
    """

    legal: Reward
    """A reward that is positive for a legal reply, such as one that tells whether it is complete."""
    n: int = Field(default=0, ge=0)
    """The most replies to keep; 0: no limit."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        kept = []
        for sample in samples:
            sampled = [reply for reply in sample.replies if reply.origin == "policy"]
            legal = [not self._is_loop(reply) and (self.legal(sample, reply) or 0.0) > 0 for reply in sampled]
            for is_legal in legal:
                context.log("filter/illegal", float(not is_legal))
            chosen = [i for i, is_legal in enumerate(legal) if is_legal]
            limit = self.n or len(sampled)
            if self.refill:
                chosen += [i for i, is_legal in enumerate(legal) if not is_legal]
            chosen = sorted(chosen[:limit])
            context.log("filter/kept", len(chosen))
            context.log("filter/dropped", float(not chosen))
            if chosen:
                others = tuple(reply for reply in sample.replies if reply.origin != "policy")
                kept.append(replace(sample, replies=(*others, *(sampled[i] for i in chosen))))
        return kept

    def _is_loop(self, reply: Reply) -> bool:
        if not self.certain_tail:
            return False
        if "behaviour_logp" not in reply.columns:
            raise ConfigError(
                "certain_tail: wanted replies with their probabilities, found none; put it after Generate"
            )
        logp = cast(Sequence[float], reply.columns["behaviour_logp"])
        tail = logp[-self.certain_tail :]
        return len(tail) == self.certain_tail and min(tail) > log(self.certain_above)
