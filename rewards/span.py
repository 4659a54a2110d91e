"""Rewards and measures for answers about time: which, when, or both (Temporal-R1, arXiv 2506.01908).

A reply thinks in think tags, then says in answer tags a word or option (video QA), `{"start_time": "3.0", "end_time":
"7.5"}` in seconds (grounding), or `{"answer": "B", "start_time": ..., "end_time": ...}` (grounded QA). The truth is
`{"duration": seconds, "spans": [[start, end], ...], "answer": text or None, "options": [text, ...]}`; what is empty
tells which of the three a row is. Several spans of one truth are alternatives. No reply makes a reward raise.
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
from mmpost.rewards.text import answer
from mmpost.types import Reply, Reward, Sample

Span = tuple[float, float]
Kind = Literal["qa", "grounding", "grounded"]

_DECIMAL = r"\d+(?:\.\d*)?|\.\d+"
_RELEASED = r"[\d.]+"
_OPTION = re.compile(r"\(?([A-Za-z])\)?[.:]?|\(([A-Z])\)\s.*|([A-Z])[.:)]\s.*", re.DOTALL)
_QUOTED = (re.compile(r'"\(([^()"]*)\)"'), re.compile(r'"([A-Z])"'))


class Said(NamedTuple):
    """What a reply answers."""

    answer: str | None
    span: Span | None
    """Seconds, as written: the end may come before the start."""


def kind(sample: Sample) -> Kind:
    """What a row asks for."""
    if not sample.truth["spans"]:
        return "qa"
    return "grounding" if sample.truth["answer"] is None else "grounded"


def parse(text: str) -> Said:
    """The answer and the span in the first answer tags; None for what is missing or cannot be read.

    Times may be quoted or not and keys stand in any order, as in the released reward; what is no JSON object is an
    answer in words.
    """
    inside = answer(text)
    if inside is None:
        return Said(None, None)
    try:
        found: Any = json.loads(inside)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return Said(inside.strip() if found is None else str(found), None)
    said = found.get("answer")
    ends = _seconds(found.get("start_time")), _seconds(found.get("end_time"))
    span = None if ends[0] is None or ends[1] is None else (ends[0], ends[1])
    return Said(str(said).strip() if isinstance(said, str | int | float) else None, span)


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def tiou(a: Sequence[float], b: Sequence[float]) -> float:
    """Temporal IoU: overlap over the hull of both, which is the union where they overlap; 0 for an inverted span."""
    both = min(a[1], b[1]) - max(a[0], b[0])
    hull = max(a[1], b[1]) - min(a[0], b[0])
    return both / hull if both > 0 and hull > 0 else 0.0


def tiop(span: Sequence[float], gold: Sequence[float]) -> float:
    """The share of `span` that lies in `gold` (NExT-GQA); a span without length has 1 inside and 0 outside."""
    if span[0] == span[1]:
        return float(gold[0] <= span[0] <= gold[1])
    return max(0.0, min(span[1], gold[1]) - max(span[0], gold[0])) / (span[1] - span[0])


def _form(sample: Sample, reply: Reply, number: str) -> float:
    """1 where the whole reply is a thought, then the answer in the one form of its kind of row."""
    time = rf'"start_time"\s*:\s*"(?:{number})"\s*,\s*"end_time"\s*:\s*"(?:{number})"\s*'
    inside = {
        "qa": ".*",
        "grounding": rf"\s*\{{\s*{time}\}}\s*",
        "grounded": rf'\s*\{{\s*"answer"\s*:\s*"[^"]+"\s*,\s*{time}\}}\s*',
    }[kind(sample)]
    return float(bool(re.fullmatch(rf"<think>.*?</think>\s*<answer>{inside}</answer>", reply.text, re.DOTALL)))


def span_form(sample: Sample, reply: Reply) -> float:
    """1 where the whole reply is a thought, then the answer: for spans JSON, times quoted, keys in that order."""
    return _form(sample, reply, _DECIMAL)


def released_form(sample: Sample, reply: Reply) -> float:
    """`span_form` as it was released: "1.2.3" passes for a time."""
    return _form(sample, reply, _RELEASED)


def right(sample: Sample, reply: Reply) -> float | None:
    """1 for the right answer, by its option (B, (B), "B. text", or the text itself) or, without options, by its words.

    None for a row that asks for no answer.
    """
    return _right(sample, parse(reply.text).answer)


def released_right(sample: Sample, reply: Reply) -> float | None:
    """`right` as the released evaluation reads a reply: quoted "(B)" or a quoted capital, else all that was said."""
    inside = answer(reply.text)
    found = next((m[1] for pattern in _QUOTED if inside is not None and (m := pattern.search(inside))), inside)
    return None if sample.truth["answer"] is None else float(found == str(sample.truth["answer"]))


def _right(sample: Sample, said: str | None) -> float | None:
    gold, options = sample.truth["answer"], sample.truth.get("options") or []
    if gold is None or said is None:
        return None if gold is None else 0.0
    if not options:
        return float(_plain(said) == _plain(gold))
    wanted = _option(str(gold), options)
    return float(wanted is not None and _option(said, options) == wanted)


def _option(said: str, options: Sequence[str]) -> int | None:
    """Which option is meant; its text counts before its letter ("A woman" is no A)."""
    texts = [_plain(o) for o in options]
    if _plain(said) in texts:
        return texts.index(_plain(said))
    found = _OPTION.fullmatch(said.strip())
    at = -1 if found is None else ord(next(g for g in found.groups() if g).upper()) - ord("A")
    return at if 0 <= at < len(options) else None


def _plain(text: Any) -> str:
    return " ".join(str(text).casefold().split())


def overlap(sample: Sample, reply: Reply) -> float | None:
    """tIoU with the nearest span of the truth; 0 for a span that is missing or inverted, None where none is asked."""
    gold, span = sample.truth["spans"], parse(reply.text).span
    return None if not gold else 0.0 if span is None else max(tiou(span, g) for g in gold)


class Dual(Settings):
    """The dual reward, 0 to 1: format, right answer and overlap, with weights (format, answer, overlap) by kind of row.

    The weights of terms that do not apply, or are switched off, go to the others in proportion.
    """

    qa: tuple[float, float, float] = (0.5, 0.5, 0.0)
    """Rows that ask which."""
    grounding: tuple[float, float, float] = (0.5, 0.0, 0.5)
    """Rows that ask when."""
    grounded: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)
    """Rows that ask both. The paper's weights are not known."""
    semantic: bool = True
    """Reward right answers."""
    temporal: bool = True
    """Reward overlap."""
    released: bool = False
    """Read replies as the released code does: "1.2.3" is a time to the format, an option only a quoted capital."""

    def terms(self) -> dict[str, Reward]:
        """The three terms by name."""
        first, second = (released_form, released_right) if self.released else (span_form, right)
        return {"format": first, "semantic": second, "temporal": overlap}

    def __call__(self, sample: Sample, reply: Reply) -> float | None:
        on = (True, self.semantic, self.temporal)
        weights = getattr(self, kind(sample))
        found = [
            (w, term(sample, reply)) for w, use, term in zip(weights, on, self.terms().values(), strict=True) if use
        ]
        known = [(w, value) for w, value in found if value is not None]
        total = sum(w for w, _ in known)
        return sum(w * value for w, value in known) / total if total else None


REWARDS: Mapping[str, Reward] = {"format": span_form, "semantic": right, "temporal": overlap}
"""What a policy is trained on, before weights."""


def iou(sample: Sample, reply: Reply) -> float | None:
    """As `overlap`, with the ends of an inverted span swapped, as official scripts do."""
    gold, span = sample.truth["spans"], _ordered(reply)
    return None if not gold else 0.0 if span is None else max(tiou(span, g) for g in gold)


def iop(sample: Sample, reply: Reply) -> float | None:
    """The largest share of the predicted span that lies in a span of the truth."""
    gold, span = sample.truth["spans"], _ordered(reply)
    return None if not gold else 0.0 if span is None else max(tiop(span, g) for g in gold)


def length(sample: Sample, reply: Reply) -> float | None:
    """Predicted length over that of the video. Near 1, the policy says "the whole video", which is safe and empty.

    None where no span is asked for, or none can be read.
    """
    span = _ordered(reply) if sample.truth["spans"] else None
    return None if span is None else (span[1] - span[0]) / sample.truth["duration"]


def unread(sample: Sample, reply: Reply) -> float:
    """1 where the answer or the span that is asked for cannot be read."""
    said, asked = parse(reply.text), kind(sample)
    return float((asked != "grounding" and said.answer is None) or (asked != "qa" and said.span is None))


def _ordered(reply: Reply) -> Span | None:
    span = parse(reply.text).span
    return None if span is None else (min(span), max(span))


measures: Mapping[str, Reward] = {
    "right": right,
    "iou": iou,
    "iop": iop,
    "length": length,
    "format": span_form,
    "unread": unread,
}
"""What an evaluation measures on each reply; `span_summary` adds it up."""

LEVELS = (0.3, 0.5, 0.7)


def span_summary(samples: Sequence[Sample]) -> dict[str, float]:
    """Metrics in percent over replies scored by `measures`; those that no row asks for are left out.

    `score`: mean over rows of answer (QA), IoU (grounding) or the mean of both. `accuracy`; `miou` and `r@0.3`,
    `r@0.5`, `r@0.7` (IoU at least); `miop`; `acc_gqa`: right with IoP of at least 0.5; `length`: mean predicted length
    over the video's. `qa_`, `grounded_`: accuracy of one kind of row; `grounding_`, `grounded_`: mIoU.
    """
    rows = [(kind(sample), reply.scores) for sample in samples for reply in sample.replies]
    pairs: list[tuple[str, float]] = []
    for asked, scores in rows:
        terms = [scores[name] for name in ("right", "iou") if name in scores]
        values = {"score": sum(terms) / len(terms), "format": scores["format"], "unread": scores["unread"]}
        if "right" in scores:
            values |= {"accuracy": scores["right"], f"{asked}_accuracy": scores["right"]}
        if "iou" in scores:
            values |= {"miou": scores["iou"], f"{asked}_miou": scores["iou"], "miop": scores["iop"]}
            values |= {f"r@{level}": float(scores["iou"] >= level) for level in LEVELS}
        if asked == "grounded":
            values["acc_gqa"] = float(scores["right"] == 1.0 and scores["iop"] >= 0.5)
        if "length" in scores:
            values["length"] = scores["length"]
        pairs += values.items()
    return mean_by(pairs, scale=100)


@register
def _marks(sample: Sample, reply: Reply | None) -> list[Mark]:
    """Spans as shares of the duration, over the first video; ends beyond the video are drawn at its ends."""
    if not isinstance(sample.truth, Mapping) or not {"spans", "duration"} <= sample.truth.keys():
        return []
    predicted = None if reply is None else _ordered(reply)
    spans = sample.truth["spans"] if reply is None else [] if predicted is None else [predicted]
    kinds = [part.modality for part in sample.prompt if part.modality != "text"]
    medium = kinds.index("video") if "video" in kinds else 0
    drawn = [tuple(min(1.0, max(0.0, v / sample.truth["duration"])) for v in span) for span in spans]
    return [Mark("span", ends, medium) for ends in drawn]
