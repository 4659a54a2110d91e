"""Which of a sample's replies are better: from the data's word, from texts, or from scores; and who is mismatched.

The column `chosen` says it: 1 for a reply that is preferred (or good), 0 for one that is rejected (or bad).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator

from mmpost.config.settings import Settings
from mmpost.errors import ColumnError, DataError, TrainError
from mmpost.transforms.columns import finite_or_none, with_columns
from mmpost.types import Context, Reply, Sample, Transform

Choice = tuple[int, int]
"""The places of a chosen and of a rejected reply."""


class EncodePairs(Transform, Settings):
    """Give the data's replies their tokens, as the model would have written them, and the column `chosen`.

    It follows from the column `label` that readers write (+1 or -1); a column `chosen` that is there stays. Raises
    DataError for a reply that nobody judged, and, unless `unpaired`, for a sample without both sorts.
    """

    makes: ClassVar[tuple[str, ...]] = ("chosen",)

    unpaired: bool = False
    """Take samples whose replies are all good or all bad."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return [self._encoded(sample, context) for sample in samples]

    def _encoded(self, sample: Sample, context: Context) -> Sample:
        replies = tuple(_tokens(with_columns(r, chosen=_judgement(sample, r)), context) for r in sample.replies)
        values = {r.columns["chosen"] for r in replies}
        if not values or (len(values) == 1 and not self.unpaired):
            raise DataError(
                f"{sample.uid}: wanted a chosen and a rejected reply, found {len(replies)} replies that are all as "
                "good; give the row `chosen` and `rejected`, or take task.loss.loss_type=kto for replies with a `label`"
            )
        return replace(sample, replies=replies)


class WritePairs(Transform, Settings):
    """A chosen and a rejected reply to each sample, from two functions; a sample that lacks one is dropped, counted."""

    makes: ClassVar[tuple[str, ...]] = ("chosen",)

    chosen: Callable[[Sample], str | None]
    """The better reply."""
    rejected: Callable[[Sample], str | None]
    """The worse one."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        out = []
        for sample in samples:
            texts = (self.chosen(sample), self.rejected(sample))
            both = [
                with_columns(context.encode_reply(t, "data"), chosen=c)
                for t, c in zip(texts, (1.0, 0.0), strict=True)
                if t
            ]
            context.log("pairs/kept", float(len(both) == 2))
            if len(both) == 2:
                out.append(replace(sample, replies=tuple(both)))
        return out


class BuildPairs(Transform, Settings):
    """Choose from scored replies: the best one, and a worse one, become the sample's replies (or all that differ).

    Replies without the score (a judge that failed) are excluded, never taken for 0. A sample whose scores lie within
    `margin` is dropped. Of equals the first is taken. Writes the sample's columns pair/gap, pair/unscored, and the
    words of both, so that a recording shows whether length was rewarded.
    """

    makes: ClassVar[tuple[str, ...]] = ("chosen",)

    score: str
    """The score's name; more is better."""
    margin: float = Field(default=1e-8, ge=0)
    """The chosen reply's score must exceed the rejected one's by more."""
    against: Literal["worst", "random", "all"] = "worst"
    """What is rejected: the worst reply, one drawn among the worse, or every worse one: then all scored replies stay,
    `chosen` holds their scores, and the loss's `margin` says how far they must differ."""
    control: Literal["none", "divide", "matched"] = "none"
    """Length: not looked at; scores divided by how much longer than the truth a reply is, if longer (LC); or only
    replies of about the same length are paired."""
    tolerance: float = Field(default=0.1, ge=0)
    """matched: lengths in words may differ by this share of the longer one."""

    @model_validator(mode="after")
    def _possible(self) -> BuildPairs:
        if self.against == "all" and self.control == "matched":
            raise ValueError("control=matched chooses single pairs; take against=worst or random, or control=divide")
        return self

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        out = []
        for sample in samples:
            scores = [self._score(sample, reply) for reply in sample.replies]
            there = [i for i, score in enumerate(scores) if score is not None]
            found = [(i, j) for i in there for j in there if self._better(sample, scores, (i, j))]
            context.log("pairs/kept", float(bool(found)))
            context.log("pairs/unscored", float(len(scores) - len(there)), float(len(scores)))
            if found:
                out.append(self._chosen(sample, [s or 0.0 for s in scores], there, found, context))
        return out

    def _score(self, sample: Sample, reply: Reply) -> float | None:
        score = finite_or_none(reply.scores.get(self.score))
        if score is None or self.control != "divide":
            return score
        if not isinstance(sample.truth, str):
            raise ColumnError(
                f"{sample.uid}: control=divide compares lengths with the reference text, found the truth "
                f"{sample.truth!r:.80}; take control=matched, or a task whose truth is text"
            )
        return score / max(_words(reply.text) / max(1, _words(sample.truth)), 1.0)

    def _better(self, sample: Sample, scores: Sequence[float | None], pair: Choice) -> bool:
        chosen, rejected = (scores[i] for i in pair)
        if chosen is None or rejected is None or not chosen - rejected > self.margin:
            return False
        words = [_words(sample.replies[i].text) for i in pair]
        return self.control != "matched" or abs(words[0] - words[1]) <= self.tolerance * max(words)

    def _chosen(
        self, sample: Sample, scores: Sequence[float], there: Sequence[int], found: Sequence[Choice], context: Context
    ) -> Sample:
        widest = max(found, key=lambda pair: scores[pair[0]] - scores[pair[1]])
        if self.against == "random":
            # The widest pair has the best reply, except where lengths keep it out.
            worse = [pair for pair in found if pair[0] == widest[0]]
            widest = worse[int(torch.randint(len(worse), (1,), generator=context.rng(f"pairs {sample.uid}")))]
        chosen, rejected = (sample.replies[i] for i in widest)
        columns = {
            "pair/gap": scores[widest[0]] - scores[widest[1]],
            "pair/words_chosen": float(_words(chosen.text)),
            "pair/words_rejected": float(_words(rejected.text)),
        }
        for name, value in columns.items():
            context.log(name.replace("pair/", "pairs/"), value)
        columns["pair/unscored"] = float(len(sample.replies) - len(there))
        if self.against == "all":
            replies = tuple(with_columns(sample.replies[i], chosen=scores[i]) for i in there)
        else:
            replies = (with_columns(chosen, chosen=1.0), with_columns(rejected, chosen=0.0))
        return replace(sample, replies=replies, columns={**sample.columns, **columns})


class Mismatched(Transform, Settings):
    """Append to each sample the replies of another one, in column `mismatched`, for the reference point of KTO.

    The samples of this rank are shuffled, and each gets the replies of the one before it; so no reply meets its own
    prompt, and the mismatched replies are the same set as the others. Raises TrainError for a single sample.
    """

    makes: ClassVar[tuple[str, ...]] = ("mismatched", "chosen", "temperature")

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        if len(samples) == 1:
            raise TrainError(
                "kto compares each reply with replies to other prompts, and found one sample on a rank: set "
                "task.prompts_per_step to at least two for each"
            )
        order = torch.randperm(len(samples), generator=context.rng("mismatched")).tolist()
        given = dict(zip(order, [*order[-1:], *order[:-1]], strict=True))
        return [self._with(sample, samples[given[i]]) for i, sample in enumerate(samples)]

    def _with(self, sample: Sample, other: Sample) -> Sample:
        own = tuple(with_columns(reply, mismatched=0.0) for reply in sample.replies)
        heat = {"temperature"}
        others = tuple(
            replace(
                reply,
                scores={},
                columns={k: v for k, v in reply.columns.items() if k in heat} | {"chosen": 0.0, "mismatched": 1.0},
            )
            for reply in other.replies
        )
        return replace(sample, replies=(*own, *others))


def _words(text: str) -> int:
    return len(text.split())


def _judgement(sample: Sample, reply: Reply) -> float:
    """1 or 0, or what a transform wrote."""
    value = reply.columns.get("chosen")
    label = reply.columns.get("label")
    if isinstance(value, int | float):
        return float(value)
    if isinstance(label, int | float):
        return float(label > 0)
    raise DataError(
        f"{sample.uid}: wanted to know whether the reply {reply.text!r:.60} is preferred, found nothing that says so; "
        "give the row `chosen` and `rejected`, or a `label` of true or false"
    )


def _tokens(reply: Reply, context: Context) -> Reply:
    if reply.token_ids is not None:
        return reply
    return replace(reply, token_ids=context.encode_reply(reply.text, reply.origin).token_ids)
