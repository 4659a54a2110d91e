"""Metrics for report generation: agreement in findings and in wording, and length.

Metrics of a single reply are functions of two texts. `ReportScores` writes them to all replies; `finding_f1` summarizes
its classes over an evaluation.
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
from mmpost.judges.base import clean_text, rel_verbosity
from mmpost.judges.radiology.findings import chexbert_labels, clean_report_lines
from mmpost.judges.radiology.vocabulary import CHEXBERT_CLASSES, COMPETITION_CLASSES
from mmpost.metrics.text import repetition, words
from mmpost.types import Context, Reply, Sample, Transform

_WORD = re.compile(r"[a-z0-9]+")
REPORT_SCORES = ("rouge_l", "bleu", "words", "rel_verbosity", "repetition")
"""The scores that `ReportScores` writes, besides one per class."""
CLASS_PREFIX = "class/"
"""Prefix of the score of a CheXbert class: 2 if the reference has it, plus 1 if the candidate has it."""


def rouge_l(reference: str, candidate: str) -> float:
    """ROUGE-L F1: 2 P R / (P + R), where P and R are the length of the longest common subsequence of words, divided by
    the number of words in the candidate and in the reference. 0 if either text has no words.

    Words are lowercase runs of letters and digits, without stemming, as in Google's `rouge-score`. That package is not
    used because it has had no release since 2022 and requires nltk.
    """
    expected, words = _WORD.findall(reference.lower()), _WORD.findall(candidate.lower())
    common = _lcs_length(expected, words)
    return 2 * common / (len(expected) + len(words)) if common else 0.0


def _lcs_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def bleu(reference: str, candidate: str) -> float:
    """Sentence BLEU-4 by sacrebleu, in [0, 1]: lowercase, 13a tokenizer, exponential smoothing, effective order."""
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(lowercase=True, effective_order=True).sentence_score(candidate, [reference]).score / 100


def corpus_bleu(references: Sequence[str], candidates: Sequence[str]) -> float:
    """Corpus BLEU-4 by sacrebleu, in [0, 1]: lowercase, 13a tokenizer."""
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(lowercase=True).corpus_score(list(candidates), [list(references)]).score / 100


class ReportScores(Transform, Settings):
    """Writes all metrics of each reply, against the report in the sample's truth, to `Reply.scores`.

    Raises DataError if the truth is not text, or has no words.
    """

    timer: ClassVar[str] = "score"

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return [replace(s, replies=tuple(self._score(s, reply) for reply in s.replies)) for s in samples]

    def _score(self, sample: Sample, reply: Reply) -> Reply:
        if not isinstance(sample.truth, str):
            raise DataError(f"{sample.label}: wanted a report as the truth, found {sample.truth!r:.80}")
        reference, candidate = clean_text(sample.truth), clean_text(reply.text)
        scores = {
            "rouge_l": rouge_l(reference, candidate),
            "bleu": bleu(reference, candidate),
            "words": words(candidate),
            "rel_verbosity": rel_verbosity(reference, candidate),
            "repetition": repetition(candidate),
        }
        expected, predicted = _positive_classes(sample.truth), _positive_classes(reply.text)
        classes = {f"{CLASS_PREFIX}{name}": 2.0 * (name in expected) + (name in predicted) for name in CHEXBERT_CLASSES}
        return replace(reply, scores={**reply.scores, **scores, **classes})


def _positive_classes(text: str) -> set[str]:
    return {name for name, status in chexbert_labels(clean_report_lines(text)).items() if status != "absent"}


def finding_f1(samples: Sequence[Sample]) -> dict[str, float]:
    """Micro and macro F1 of the CheXbert classes over all replies: of all fourteen, and of the five of competitions.

    Reads the class scores of `ReportScores`. An uncertain finding counts as present. The macro average leaves out
    classes that no reference and no candidate has. {} if no reply has class scores.
    """
    codes = {name: Counter[float]() for name in CHEXBERT_CLASSES}
    for sample in samples:
        for reply in sample.replies:
            for name in CHEXBERT_CLASSES:
                if f"{CLASS_PREFIX}{name}" in reply.scores:
                    codes[name][reply.scores[f"{CLASS_PREFIX}{name}"]] += 1
    if not any(codes.values()):
        return {}
    return {
        **{f"{average}_f1_14": value for average, value in _f1(codes, CHEXBERT_CLASSES).items()},
        **{f"{average}_f1_5": value for average, value in _f1(codes, COMPETITION_CLASSES).items()},
    }


def _f1(codes: Mapping[str, Counter[float]], names: Sequence[str]) -> dict[str, float]:
    """Micro and macro F1 = 2 tp / (2 tp + fp + fn)."""
    counts = [(codes[name][3.0], codes[name][1.0] + codes[name][2.0]) for name in names]
    tp_total, error_total = (sum(column) for column in zip(*counts, strict=True))
    per_class = [2 * tp / (2 * tp + errors) for tp, errors in counts if tp + errors]
    micro = 2 * tp_total / (2 * tp_total + error_total) if tp_total + error_total else 0.0
    return {"micro": micro, "macro": fmean(per_class) if per_class else 0.0}
