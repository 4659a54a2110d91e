"""Preference labels of replies: read from the data, given by functions that write both replies, or made from scores.

They are in the column `chosen`: 1 for a chosen (or good) reply, 0 for a rejected (or bad) one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator

from mmpost.config.settings import Settings
from mmpost.core.columns import finite_or_none, with_columns
from mmpost.errors import ColumnError, DataError, TrainError
from mmpost.transforms.generate import with_token_ids
from mmpost.types import Context, Reply, Sample, Transform

Pair = tuple[int, int]
"""The indices of a chosen and of a rejected reply of the same sample."""


class EncodePairs(Transform, Settings):
    """Tokenize the replies that come with the data, and write the column `chosen`.

    A reply that has the column keeps it; otherwise it is derived from the column `label` (+1 or -1) that readers of
    preference data write. Raises DataError for a reply without label and, unless `unpaired`, for a sample that does
    not have both chosen and rejected replies.
    """

    makes: ClassVar[tuple[str, ...]] = ("chosen",)

    unpaired: bool = False
    """Accept samples whose replies are all good or all bad (KTO)."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return [self._encode(sample, context) for sample in samples]

    def _encode(self, sample: Sample, context: Context) -> Sample:
        replies = tuple(with_token_ids(with_columns(r, chosen=_label(sample, r)), context) for r in sample.replies)
        labels = {r.columns["chosen"] for r in replies}
        if not labels or (len(labels) == 1 and not self.unpaired):
            raise DataError(
                f"{sample.label}: wanted a chosen and a rejected reply, found {len(replies)} with the same label; give "
                "the row `chosen` and `rejected`, or set task.loss.loss_type=kto for replies with a `label`"
            )
        return replace(sample, replies=replies)


class WritePairs(Transform, Settings):
    """Write a chosen and a rejected reply to each sample with two functions.

    Samples for which either returns no text are dropped; logs the fraction that is left as "pairs/kept".
    """

    makes: ClassVar[tuple[str, ...]] = ("chosen",)

    chosen: Callable[[Sample], str | None]
    """Writes the chosen reply; None drops the sample."""
    rejected: Callable[[Sample], str | None]
    """Writes the rejected reply; None drops the sample."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        out = []
        for sample in samples:
            texts = (self.chosen(sample), self.rejected(sample))
            replies = [
                with_columns(context.encode_reply(text, "data"), chosen=label)
                for text, label in zip(texts, (1.0, 0.0), strict=True)
                if text
            ]
            context.log("pairs/kept", float(len(replies) == 2))
            if len(replies) == 2:
                out.append(replace(sample, replies=tuple(replies)))
        return out


class BuildPairs(Transform, Settings):
    """Build preference pairs from scored replies: the best reply and a worse one become the sample's replies.

    Replies without the score (the judge failed) are excluded, not treated as 0. Samples whose scores all lie within
    `margin` are dropped. Ties go to the earlier reply. Writes the sample columns pair/gap (of the scores),
    pair/unscored, pair/words_chosen and pair/words_rejected; the last two show whether the score rewards length.
    """

    makes: ClassVar[tuple[str, ...]] = ("chosen",)

    score: str
    """Name of the score; higher is better."""
    margin: float = Field(default=1e-8, ge=0)
    """The chosen reply's score must exceed the rejected one's by more than this."""
    against: Literal["worst", "random", "all"] = "worst"
    """The rejected reply: the worst one, a random one among the worse, or all of them. With all, every scored reply is
    kept, `chosen` holds its score, and the loss pairs those that differ by more than its own `margin`."""
    control: Literal["none", "divide", "matched"] = "none"
    """Length control. divide: divide scores by words / words of the truth where that exceeds 1 (LC); matched: pair only
    replies of similar length."""
    tolerance: float = Field(default=0.1, ge=0)
    """matched: lengths in words may differ by at most this fraction of the longer one."""

    @model_validator(mode="after")
    def _consistent(self) -> BuildPairs:
        if self.against == "all" and self.control == "matched":
            raise ValueError("control=matched selects single pairs; set against to worst or random, or control=divide")
        return self

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        out = []
        for sample in samples:
            scores = [self._score(sample, reply) for reply in sample.replies]
            scored = [i for i, score in enumerate(scores) if score is not None]
            pairs = [(i, j) for i in scored for j in scored if self._is_pair(sample, scores, (i, j))]
            context.log("pairs/kept", float(bool(pairs)))
            context.log("pairs/unscored", float(len(scores) - len(scored)), float(len(scores)))
            if pairs:
                out.append(self._with_pair(sample, [s or 0.0 for s in scores], scored, pairs, context))
        return out

    def _score(self, sample: Sample, reply: Reply) -> float | None:
        score = finite_or_none(reply.scores.get(self.score))
        if score is None or self.control != "divide":
            return score
        if not isinstance(sample.truth, str):
            raise ColumnError(
                f"{sample.label}: control=divide wants a reference text as the truth to compare lengths with, found "
                f"{sample.truth!r:.80}; set control=matched, or choose a task whose truth is text"
            )
        return score / max(_words(reply.text) / max(1, _words(sample.truth)), 1.0)

    def _is_pair(self, sample: Sample, scores: Sequence[float | None], pair: Pair) -> bool:
        chosen, rejected = (scores[i] for i in pair)
        if chosen is None or rejected is None or not chosen - rejected > self.margin:
            return False
        words = [_words(sample.replies[i].text) for i in pair]
        return self.control != "matched" or abs(words[0] - words[1]) <= self.tolerance * max(words)

    def _with_pair(
        self, sample: Sample, scores: Sequence[float], scored: Sequence[int], pairs: Sequence[Pair], context: Context
    ) -> Sample:
        """`sample` with the replies of one of `pairs`, or with all `scored` ones, and the columns about the pair."""
        pair = max(pairs, key=lambda pair: scores[pair[0]] - scores[pair[1]])
        if self.against == "random":
            # The widest pair holds the best reply, unless length matching leaves that one without a partner.
            candidates = [candidate for candidate in pairs if candidate[0] == pair[0]]
            pair = candidates[int(torch.randint(len(candidates), (1,), generator=context.rng(f"pairs {sample.uid}")))]
        chosen, rejected = (sample.replies[i] for i in pair)
        columns = {
            "pair/gap": scores[pair[0]] - scores[pair[1]],
            "pair/words_chosen": float(_words(chosen.text)),
            "pair/words_rejected": float(_words(rejected.text)),
        }
        for name, value in columns.items():
            context.log(name.replace("pair/", "pairs/"), value)
        columns["pair/unscored"] = float(len(sample.replies) - len(scored))
        if self.against == "all":
            replies = tuple(with_columns(sample.replies[i], chosen=scores[i]) for i in scored)
        else:
            replies = (with_columns(chosen, chosen=1.0), with_columns(rejected, chosen=0.0))
        return replace(sample, replies=replies, columns={**sample.columns, **columns})


class Mismatched(Transform, Settings):
    """Append the replies of another sample to each sample: the mismatched replies of KTO (arXiv 2402.01306).

    KTO's reference point is the mean log-ratio over them. The samples of this rank are shuffled, and each gets the
    replies of the previous one: no reply is paired with its own prompt, and every reply is mismatched exactly once.
    Writes the column `mismatched` (1 or 0). Raises TrainError for a single sample.
    """

    makes: ClassVar[tuple[str, ...]] = ("mismatched", "chosen", "temperature")

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        if len(samples) == 1:
            raise TrainError(
                "kto compares replies with replies to other prompts: wanted two or more samples on each rank, found "
                "one; set task.prompts_per_step to at least twice the number of ranks"
            )
        order = torch.randperm(len(samples), generator=context.rng("mismatched")).tolist()
        previous = dict(zip(order, [*order[-1:], *order[:-1]], strict=True))
        return [self._with_replies_of(samples[previous[i]], sample) for i, sample in enumerate(samples)]

    def _with_replies_of(self, other: Sample, sample: Sample) -> Sample:
        matched = tuple(with_columns(reply, mismatched=0.0) for reply in sample.replies)
        # Columns such as ref_logp belong to the other prompt; only the temperature still holds for this one.
        mismatched = tuple(
            replace(
                reply,
                scores={},
                columns={k: v for k, v in reply.columns.items() if k == "temperature"}
                | {"chosen": 0.0, "mismatched": 1.0},
            )
            for reply in other.replies
        )
        return replace(sample, replies=(*matched, *mismatched))


def _words(text: str) -> int:
    return len(text.split())


def _label(sample: Sample, reply: Reply) -> float:
    """The column `chosen` if a transform has written it (BuildPairs also writes scores), else 1 or 0 from `label`."""
    chosen = reply.columns.get("chosen")
    label = reply.columns.get("label")
    if isinstance(chosen, int | float):
        return float(chosen)
    if isinstance(label, int | float):
        return float(label > 0)
    raise DataError(
        f"{sample.label}: wanted a preference label for the reply {reply.text!r:.60}, found none; give the row "
        "`chosen` and `rejected`, or a `label` of true or false"
    )
