"""What is reported of report generation: agreement in findings and in words, and length.

Measures on one reply are functions of texts; `ReportScores` writes them all to a sample's replies, `finding_f1` and
`means` make a bench's summary of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import ClassVar

from mmpost.config.settings import Settings
from mmpost.errors import DataError
from mmpost.judges.base import cleaned, rel_verbosity, sentences
from mmpost.judges.radiology.findings import labels
from mmpost.judges.radiology.vocabulary import CHEXBERT, FIVE
from mmpost.metrics.text import repetition, words
from mmpost.types import Context, Reply, Sample

_WORD = re.compile(r"[a-z0-9]+")
NAMES = ("rouge_l", "bleu", "words", "rel_verbosity", "repetition")
"""What `ReportScores` writes besides the classes."""
CLASS = "class/"
"""Begins the score of a class: 2 where the reference has it, and 1 more where the candidate has."""


def rouge_l(reference: str, candidate: str) -> float:
    """ROUGE-L F1: 2 P R / (P + R), P and R the longest common subsequence of words by the words of either text.

    Words are runs of letters and digits in lower case, without stemming, as in Google's `rouge-score` (which is not
    used: it has no release since 2022 and wants nltk). 0 where either text has no words.
    """
    wanted, said = _WORD.findall(reference.lower()), _WORD.findall(candidate.lower())
    common = _common(wanted, said)
    return 2 * common / (len(wanted) + len(said)) if common else 0.0


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def bleu(reference: str, candidate: str) -> float:
    """Sentence BLEU-4 of sacrebleu in [0, 1]: lower case, 13a tokens, exponential smoothing, effective order."""
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(lowercase=True, effective_order=True).sentence_score(candidate, [reference]).score / 100


def corpus_bleu(references: Sequence[str], candidates: Sequence[str]) -> float:
    """BLEU-4 of sacrebleu over all texts together, in [0, 1]: lower case, 13a tokens."""
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(lowercase=True).corpus_score(list(candidates), [list(references)]).score / 100


class ReportScores(Settings):
    """Writes every measure of each reply beside the sample's truth, a text, to `Reply.scores`.

    Raises DataError where the truth is no text with words in it.
    """

    clock: ClassVar[str] = "score"

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return [replace(s, replies=tuple(self._scored(s, reply) for reply in s.replies)) for s in samples]

    def _scored(self, sample: Sample, reply: Reply) -> Reply:
        if not isinstance(sample.truth, str):
            raise DataError(f"sample {sample.uid!r}: wanted a report as the truth, found {sample.truth!r:.80}")
        wanted, said = cleaned(sample.truth), cleaned(reply.text)
        scores = {
            "rouge_l": rouge_l(wanted, said),
            "bleu": bleu(wanted, said),
            "words": words(said),
            "rel_verbosity": rel_verbosity(wanted, said),
            "repetition": repetition(said),
        }
        here, there = (_positive(sentences(text)) for text in (sample.truth, reply.text))
        classes = {f"{CLASS}{name}": 2.0 * (name in here) + (name in there) for name in CHEXBERT}
        return replace(reply, scores={**reply.scores, **scores, **classes})


def _positive(text: str) -> set[str]:
    return {name for name, status in labels(text).items() if status != "absent"}


def means(samples: Sequence[Sample], names: Sequence[str] = NAMES) -> dict[str, float]:
    """The mean of each score over all replies that have it; a score that none has is missing."""
    found: dict[str, list[float]] = {}
    for sample in samples:
        for reply in sample.replies:
            for name in names:
                if name in reply.scores:
                    found.setdefault(name, []).append(reply.scores[name])
    return {name: fmean(values) for name, values in found.items()}


def finding_f1(samples: Sequence[Sample]) -> dict[str, float]:
    """F1 of CheXbert's classes over all replies: micro and macro over fourteen, and over the five of competitions.

    Read from what `ReportScores` wrote; a doubtful finding counts as one. Macro leaves out the classes that neither
    references nor candidates have. {} without replies.
    """
    codes = {name: Counter[float]() for name in CHEXBERT}
    for sample in samples:
        for reply in sample.replies:
            for name in CHEXBERT:
                if f"{CLASS}{name}" in reply.scores:
                    codes[name][reply.scores[f"{CLASS}{name}"]] += 1
    if not any(codes.values()):
        return {}
    return {
        **{f"{kind}_f1_14": value for kind, value in _f1(codes, CHEXBERT).items()},
        **{f"{kind}_f1_5": value for kind, value in _f1(codes, FIVE).items()},
    }


def _f1(codes: Mapping[str, Counter[float]], names: Sequence[str]) -> dict[str, float]:
    """Micro and macro F1 = 2 tp / (2 tp + fp + fn)."""
    counts = [(codes[name][3.0], codes[name][1.0] + codes[name][2.0]) for name in names]
    right, wrong = (sum(column) for column in zip(*counts, strict=True))
    each = [2 * tp / (2 * tp + errors) for tp, errors in counts if tp + errors]
    micro = 2 * right / (2 * right + wrong) if right + wrong else 0.0
    return {"micro": micro, "macro": fmean(each) if each else 0.0}
