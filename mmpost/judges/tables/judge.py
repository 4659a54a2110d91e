"""TRivia's reward: how well questions about a picture are answered from the table recognised in it (arXiv 2512.01248).

The reader that answers sees the recognised table, never the picture; the questions come with the sample, in
`meta["qa_pairs"]`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Literal

from mmpost.errors import DataError
from mmpost.judges.base import Judge, Pair, Verdict
from mmpost.judges.tables.readers import ExactReader, MarkupReader
from mmpost.tables.questions import (
    NOT_ANSWERABLE,
    Question,
    legal_tail,
    question_pairs,
    released_character_f1,
    shown_table,
    token_f1,
)
from mmpost.types import Reply, Sample

QUESTIONS = "qa_pairs"
"""The key of `Sample.meta` that holds the questions."""
F1: Mapping[str, Callable[[str, str], float]] = {"token": token_f1, "char_bag": released_character_f1}


class TableQuestions(Judge):
    """The mean score of the answers to a sample's questions, read from the table in the reply: 0 to 1.

    A table that was cut off scores 0 without a question asked. A reply of which a question got no answer has no score:
    replies of a group would be compared by different questions.
    """

    reader: MarkupReader = ExactReader()
    """Which model answers."""
    f1: Literal["token", "char_bag"] = "token"
    """How an answer is compared: by words, numbers as a whole; or, as in TRivia's code, by its bag of characters."""

    def pair(self, sample: Sample, reply: Reply) -> Pair:
        if QUESTIONS not in sample.meta:
            raise DataError(
                f"{sample.label}: wanted questions in meta[{QUESTIONS!r}], found {sorted(sample.meta)}; add "
                f"{QUESTIONS}, or have them written"
            )
        questions = question_pairs(sample.meta[QUESTIONS], sample.label)
        return Pair(json.dumps([question._asdict() for question in questions]), reply.text)

    def judge(self, pairs: Sequence[Pair | tuple[str, str]]) -> list[Verdict]:
        """One verdict per (questions as JSON, recognised table)."""
        asked: list[tuple[str, str]] = []
        questions: list[list[Question]] = []
        for pair in map(_as_pair, pairs):
            wanted = [Question(**row) for row in json.loads(pair.reference)]
            questions.append(wanted)
            if legal_tail(pair.candidate):
                shown = shown_table(pair.candidate)
                asked += [(shown, question.question) for question in wanted]
        answers = iter(self.reader.answers(asked))
        verdicts = []
        for pair, wanted in zip(map(_as_pair, pairs), questions, strict=True):
            if not wanted or not legal_tail(pair.candidate):
                verdicts.append(Verdict(0.0, counts={"answerable": 0.0}))
                continue
            verdicts.append(self._verdict(wanted, [next(answers) for _ in wanted]))
        return verdicts

    def _verdict(self, wanted: Sequence[Question], given: Sequence) -> Verdict:
        failures = [answer.failure for answer in given if answer.failure]
        if failures:
            return Verdict(None, "failed", raw_reply=failures[0])
        if not all(answer.text for answer in given):
            return Verdict(None, "unparseable", raw_reply="an answer was empty or truncated")
        answerable = [NOT_ANSWERABLE not in answer.text.lower() for answer in given]
        scores = [
            F1[self.f1](answer.text, question.answer) if can else 0.0
            for question, answer, can in zip(wanted, given, answerable, strict=True)
        ]
        return Verdict(fmean(scores), counts={"answerable": fmean(answerable)})


def _as_pair(pair: Pair | tuple[str, str]) -> Pair:
    return Pair(*pair)
