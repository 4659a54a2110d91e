"""TRivia's reward: how well questions about a picture are answered from the table recognised in it (arXiv 2512.01248).

The reader that answers sees the recognised table, never the picture; the questions come with the sample, in
`meta["qa_pairs"]`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Literal

from mmpost.judges.base import Judge, Pair, Verdict
from mmpost.judges.chat_judge import Answer
from mmpost.judges.tables.readers import ExactReader, MarkupReader, untagged
from mmpost.rewards.text import answer_or_text
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

    The table is that in the reply's answer tags, or in the whole reply. OTSL that was cut off scores 0 without a
    question asked, and so does every reply to an empty list of questions; a sample that holds no list has no score. An
    empty answer, as truncated ones are, is a wrong one. A reply has no score if a request failed, or if all answers are
    empty: that says more about the model that answers than about the table.
    """

    reader: MarkupReader = ExactReader()
    """Which model answers."""
    f1: Literal["token", "char_bag"] = "token"
    """How an answer is compared: by words, numbers as a whole; or, as in TRivia's code, by its bag of characters."""

    def pair(self, sample: Sample, reply: Reply) -> Pair:
        table = answer_or_text(reply.text)
        if QUESTIONS not in sample.meta:
            return Pair("", table)
        questions = question_pairs(sample.meta[QUESTIONS])
        return Pair(json.dumps([question._asdict() for question in questions]), table)

    def judge(self, pairs: Sequence[Pair | tuple[str, str]]) -> list[Verdict]:
        """One verdict per (questions as JSON, recognised table)."""
        rows = [Pair(*pair) for pair in pairs]
        questions = [_questions(row) for row in rows]
        shown = [shown_table(row.candidate) for row in rows]
        asked = [(table, q.question) for table, wanted in zip(shown, questions, strict=True) for q in wanted]
        answers = iter(self.reader.answers(asked) if asked else [])
        return [
            self._verdict(row, wanted, [next(answers) for _ in wanted])
            for row, wanted in zip(rows, questions, strict=True)
        ]

    def _verdict(self, row: Pair, wanted: Sequence[Question], given: Sequence[Answer]) -> Verdict:
        if not row.reference:
            return Verdict(None, "inapplicable", raw_reply="the sample has no questions")
        if not wanted:
            return Verdict(0.0, counts={"answerable": 0.0, "empty": 0.0})
        failures = [answer.failure for answer in given if answer.failure]
        if failures:
            return Verdict(None, "failed", raw_reply=failures[0])
        if not any(answer.text for answer in given):
            return Verdict(None, "unparseable", raw_reply="all answers were empty or truncated")
        answerable = [NOT_ANSWERABLE not in answer.text.lower() for answer in given]
        scores = [
            F1[self.f1](answer.text, untagged(question.answer)) if can else 0.0
            for question, answer, can in zip(wanted, given, answerable, strict=True)
        ]
        empty = fmean(not answer.text for answer in given)
        return Verdict(fmean(scores), counts={"answerable": fmean(answerable), "empty": empty})


def _questions(row: Pair) -> list[Question]:
    """The questions to ask: none about a table that was cut off."""
    known = json.loads(row.reference) if row.reference and legal_tail(row.candidate) else []
    return [Question(**question) for question in known]
