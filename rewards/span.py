"""Rewards and metrics for temporal video understanding: QA, grounding or both (Temporal-R1, arXiv 2506.01908).

A reply has think tags and then answer tags with a word or option (QA), `{"start_time": "3.0", "end_time": "7.5"}` in
seconds (temporal grounding), or `{"answer": "B", "start_time": ..., "end_time": ...}` (grounded QA). The truth is
`{"duration": seconds, "spans": [[start, end], ...], "answer": text or None, "options": [text, ...]}`; which of spans
and answer are empty determines the question type. Several spans are alternatives. Rewards never raise because of a
reply.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from mmpost.config.settings import Settings
from mmpost.core.annotations import Mark, register
from mmpost.core.means import mean_by
from mmpost.rewards.text import answer, thinks
from mmpost.types import Reply, Reward, Sample

Span = tuple[float, float]
QuestionType = Literal["qa", "grounding", "grounded"]

_DECIMAL = r"\d+(?:\.\d*)?|\.\d+"
_RELEASED = r"[\d.]+"
_OPTION = re.compile(r"\(?([A-Za-z])\)?[.:]?|\(([A-Z])\)\s.*|([A-Z])[.:)]\s.*", re.DOTALL)
_QUOTED = (re.compile(r'"\(([^()"]*)\)"'), re.compile(r'"([A-Z])"'))


class ParsedAnswer(NamedTuple):
    """The answer of a reply; None for what it lacks."""

    answer: str | None
    span: Span | None
    """(start, end) in seconds, as written: the end may precede the start."""


def question_type(sample: Sample) -> QuestionType:
    """ "qa" asks for an answer, "grounding" for a span, "grounded" (grounded QA) for both."""
    if not sample.truth["spans"]:
        return "qa"
    return "grounding" if sample.truth["answer"] is None else "grounded"


def parse(text: str) -> ParsedAnswer:
    """The answer and the span in the first answer tags; None for what is missing or malformed.

    As in the released reward, times may be quoted or not, and keys may come in any order. Anything but a JSON object is
    an answer in words.
    """
    content = answer(text)
    if content is None:
        return ParsedAnswer(None, None)
    try:
        fields: Any = json.loads(content)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        return ParsedAnswer(content.strip() if fields is None else str(fields), None)
    words = fields.get("answer")
    start, end = _seconds(fields.get("start_time")), _seconds(fields.get("end_time"))
    span = None if start is None or end is None else (start, end)
    return ParsedAnswer(str(words).strip() if isinstance(words, str | int | float) else None, span)


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def tiou(a: Sequence[float], b: Sequence[float]) -> float:
    """Temporal IoU, 0 to 1; 0 for an inverted span."""
    # The hull is the union whenever the two overlap, and otherwise the result is 0 anyway.
    both = min(a[1], b[1]) - max(a[0], b[0])
    hull = max(a[1], b[1]) - min(a[0], b[0])
    return both / hull if both > 0 and hull > 0 else 0.0


def tiop(span: Sequence[float], gold: Sequence[float]) -> float:
    """Temporal IoP (NExT-GQA, arXiv 2309.01327): the fraction of `span` inside `gold`; 1 or 0 for an empty span."""
    if span[0] == span[1]:
        return float(gold[0] <= span[0] <= gold[1])
    return max(0.0, min(span[1], gold[1]) - max(span[0], gold[0])) / (span[1] - span[0])


def _format(sample: Sample, reply: Reply, number: str) -> float:
    """1 if the whole reply is think tags and then an answer in the form of its question type."""
    if not reply.text.endswith("</answer>"):
        return 0.0  # the pattern would find that out anew for each "</think><answer>"
    time = rf'"start_time"\s*:\s*"(?:{number})"\s*,\s*"end_time"\s*:\s*"(?:{number})"\s*'
    content = {
        "qa": ".*",
        "grounding": rf"\s*\{{\s*{time}\}}\s*",
        "grounded": rf'\s*\{{\s*"answer"\s*:\s*"[^"]+"\s*,\s*{time}\}}\s*',
    }[question_type(sample)]
    return float(bool(re.fullmatch(rf"<think>.*?</think>\s*<answer>{content}</answer>", reply.text, re.DOTALL)))


def span_format(sample: Sample, reply: Reply) -> float:
    """1 if the reply is a thought and then an answer, which for spans is JSON with quoted times and ordered keys."""
    return _format(sample, reply, _DECIMAL) * thinks(sample, reply)


def released_format(sample: Sample, reply: Reply) -> float:
    """`span_format` of the released code, where "1.2.3" passes for a time, and an empty thought for a thought."""
    return _format(sample, reply, _RELEASED)


def answer_accuracy(sample: Sample, reply: Reply) -> float | None:
    """1 for the correct answer, else 0; None for grounding, which asks for no answer.

    With options, B, (B), "B. text" and the option's text are all accepted; without, texts are compared up to case and
    whitespace.
    """
    gold, options = sample.truth["answer"], sample.truth.get("options") or []
    if gold is None:
        return None
    text = parse(reply.text).answer
    if text is None:
        return 0.0
    if not options:
        return float(_normalize(text) == _normalize(gold))
    correct = _option(str(gold), options)
    return float(correct is not None and _option(text, options) == correct)


def released_answer_accuracy(sample: Sample, reply: Reply) -> float | None:
    """`answer_accuracy` of the released code, which reads a quoted "(B)" or capital, else everything in the tags."""
    content = answer(reply.text)
    letter = next((m[1] for pattern in _QUOTED if content is not None and (m := pattern.search(content))), content)
    return None if sample.truth["answer"] is None else float(letter == str(sample.truth["answer"]))


def _option(text: str, options: Sequence[str]) -> int | None:
    """The index of the option that is meant; None for none of them."""
    texts = [_normalize(o) for o in options]
    if _normalize(text) in texts:  # before the letter: "A woman" is not option A
        return texts.index(_normalize(text))
    match = _OPTION.fullmatch(text.strip())
    index = -1 if match is None else ord(next(g for g in match.groups() if g).upper()) - ord("A")
    return index if 0 <= index < len(options) else None


def _normalize(text: Any) -> str:
    return " ".join(str(text).casefold().split())


def overlap(sample: Sample, reply: Reply) -> float | None:
    """tIoU with the closest span of the truth; 0 for a missing or inverted span, None if none is asked for."""
    gold, span = sample.truth["spans"], parse(reply.text).span
    return None if not gold else 0.0 if span is None else max(tiou(span, g) for g in gold)


class DualReward(Settings):
    """Temporal-R1's dual reward, 0 to 1: a weighted mean of format, answer accuracy and overlap.

    Weights (format, answer, overlap) depend on the question type. They are renormalized over the terms that apply and
    are enabled.
    """

    qa: tuple[float, float, float] = (0.5, 0.5, 0.0)
    """Weights for questions that ask for an answer."""
    grounding: tuple[float, float, float] = (0.5, 0.0, 0.5)
    """Weights for questions that ask for a span."""
    grounded: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)
    """Weights for questions that ask for both; the paper does not state them."""
    semantic: bool = True
    """Reward correct answers."""
    temporal: bool = True
    """Reward overlap."""
    released: bool = False
    """Parse replies as the released code does: "1.2.3" is a time, and an option must be a quoted capital."""

    def terms(self) -> dict[str, Reward]:
        """The three rewards by name."""
        if self.released:
            return {"format": released_format, "semantic": released_answer_accuracy, "temporal": overlap}
        return {"format": span_format, "semantic": answer_accuracy, "temporal": overlap}

    def __call__(self, sample: Sample, reply: Reply) -> float | None:
        enabled = (True, self.semantic, self.temporal)
        weights = getattr(self, question_type(sample))
        scores = [
            (w, term(sample, reply)) for w, on, term in zip(weights, enabled, self.terms().values(), strict=True) if on
        ]
        applicable = [(w, score) for w, score in scores if score is not None]
        total = sum(w for w, _ in applicable)
        return sum(w * score for w, score in applicable) / total if total else None


REWARDS: Mapping[str, Reward] = {"format": span_format, "semantic": answer_accuracy, "temporal": overlap}
"""The training rewards, without weights."""


def iou(sample: Sample, reply: Reply) -> float | None:
    """As `overlap`, but the ends of an inverted span are swapped, as the official scripts do."""
    gold, span = sample.truth["spans"], _ordered(reply)
    return None if not gold else 0.0 if span is None else max(tiou(span, g) for g in gold)


def iop(sample: Sample, reply: Reply) -> float | None:
    """The largest `tiop` of the predicted span with a span of the truth; 0 if it is missing, None if not asked for."""
    gold, span = sample.truth["spans"], _ordered(reply)
    return None if not gold else 0.0 if span is None else max(tiop(span, g) for g in gold)


def relative_length(sample: Sample, reply: Reply) -> float | None:
    """Length of the predicted span divided by the video's. Near 1, the policy predicts the whole video to be safe.

    None if no span is asked for or predicted.
    """
    span = _ordered(reply) if sample.truth["spans"] else None
    return None if span is None else (span[1] - span[0]) / sample.truth["duration"]


def parse_failure(sample: Sample, reply: Reply) -> float:
    """1 if the answer or the span that is asked for cannot be parsed, else 0."""
    parsed, question = parse(reply.text), question_type(sample)
    return float((question != "grounding" and parsed.answer is None) or (question != "qa" and parsed.span is None))


def _ordered(reply: Reply) -> Span | None:
    span = parse(reply.text).span
    return None if span is None else (min(span), max(span))


measures: Mapping[str, Reward] = {
    "right": answer_accuracy,
    "iou": iou,
    "iop": iop,
    "length": relative_length,
    "format": span_format,
    "thinks": thinks,
    "unread": parse_failure,
}
"""The metrics of an evaluation, reply by reply; `span_summary` aggregates them."""

LEVELS = (0.3, 0.5, 0.7)
"""IoU thresholds of the recall metrics."""


def span_summary(samples: Sequence[Sample]) -> dict[str, float]:
    """Percentages over replies scored by `measures`; those that no question type has are left out.

    score: mean of answer accuracy (QA), IoU (grounding) or the average of both (grounded QA). accuracy; miou; r@0.3,
    r@0.5, r@0.7: fraction with at least that IoU; miop; acc_gqa: correct answers with IoP >= 0.5; length: mean
    `relative_length`; format; thinks; unread. By question type: qa_accuracy, grounded_accuracy, grounding_miou,
    grounded_miou.
    """
    rows = [(question_type(sample), reply.scores) for sample in samples for reply in sample.replies]
    pairs: list[tuple[str, float]] = []
    for question, scores in rows:
        terms = [scores[name] for name in ("right", "iou") if name in scores]
        values = {"score": sum(terms) / len(terms)} | {name: scores[name] for name in ("format", "thinks", "unread")}
        if "right" in scores:
            values |= {"accuracy": scores["right"], f"{question}_accuracy": scores["right"]}
        if "iou" in scores:
            values |= {"miou": scores["iou"], f"{question}_miou": scores["iou"], "miop": scores["iop"]}
            values |= {f"r@{level}": float(scores["iou"] >= level) for level in LEVELS}
        if question == "grounded":
            values["acc_gqa"] = float(scores["right"] == 1.0 and scores["iop"] >= 0.5)
        if "length" in scores:
            values["length"] = scores["length"]
        pairs += values.items()
    return mean_by(pairs, scale=100)


@register
def _marks(sample: Sample, reply: Reply | None) -> list[Mark]:
    """Spans as fractions of the duration, clamped to it, on the prompt's first video."""
    if not isinstance(sample.truth, Mapping) or not {"spans", "duration"} <= sample.truth.keys():
        return []
    predicted = None if reply is None else _ordered(reply)
    spans = sample.truth["spans"] if reply is None else [] if predicted is None else [predicted]
    modalities = [part.modality for part in sample.prompt if part.modality != "text"]
    medium = modalities.index("video") if "video" in modalities else 0
    fractions = [tuple(min(1.0, max(0.0, v / sample.truth["duration"])) for v in span) for span in spans]
    return [Mark("span", ends, medium) for ends in fractions]
