"""Rewards for moments of a video in free replies: one span (Charades-STA, arXiv 1705.02101; ActivityNet Captions, arXiv
1705.00754), or a ranked list of them (QVHighlights, arXiv 2107.09609).

The truth is that of `span`: `{"spans": [[start, end], ...], ...}` in seconds. Without any, every reply is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mmpost.rewards.options import answer_span
from mmpost.rewards.span import Span, parse, tiou
from mmpost.types import Reply, Sample

_DIGITS, _NUMBER, _DASH = re.compile(r"\d+"), re.compile(r"\d+\.*\d*"), re.compile(r"\s*-\s*")
_SENTENCE = re.compile(r"[!?\n]")
_FIRST_NUMBER = re.compile(r"\b(\d+\.\d+\b|\b\d+)\b")
_KEYWORDS = ("start", "end", "happen")
_TIME = r"((?:\d{1,3}:){0,2}\d{1,6}(?:\.\d{1,12})?)"
_UNIT = r"(?: ?(?:s|secs?|seconds?))?"
_SPAN = re.compile(
    rf"[\[(] ?{_TIME}{_UNIT} ?, ?{_TIME}{_UNIT} ?[\])]"
    rf"|(?<![\w.:-]){_TIME}{_UNIT}(?: ?[-\u2013\u2014] ?| (?:to|and|until) ){_TIME}(?![.:]?\d)"
    rf"|\bstart[^\d]{{0,30}}{_TIME}[^\d]{{0,30}}\bend[^\d]{{0,30}}{_TIME}",
    re.IGNORECASE,
)


def timechat_span(text: str) -> Span | None:
    """The span that TimeChat's script reads (arXiv 2312.02051), its ends in order; None without one.

    The first two numbers with a hyphen between them, anywhere; else the first numbers of the first two sentences that
    have one and say start, end or happen. Sentences end with an exclamation mark, a question mark or a line, not with a
    full stop. Clock times are no numbers in it, except that 00:12-00:15 is 12 to 0. None, too, where a number next to a
    hyphen is malformed, at which the script ends.
    """
    text = text.lower()
    try:
        spans = [(float(start), float(end)) for start, end in _hyphenated(text)]
    except ValueError:
        return None
    if not spans:
        sentences = (s for s in _SENTENCE.split(text) if any(keyword in s for keyword in _KEYWORDS))
        times = [float(found[1]) for s in sentences if (found := _FIRST_NUMBER.search(s))]
        spans = list(zip(times[::2], times[1::2], strict=False))
    return (min(spans[0]), max(spans[0])) if spans else None


def _hyphenated(text: str) -> Iterator[tuple[str, str]]:
    """The numbers on either side of each hyphen. As one expression, a search would take time cubic in the digits."""
    place = 0
    for digits in _DIGITS.finditer(text):
        start = _NUMBER.match(text, digits.start())
        dash = start and _DASH.match(text, start.end())
        end = dash and _NUMBER.match(text, dash.end())
        if start and end and digits.start() >= place:
            yield start[0], end[0]
            place = end.end()


def spans_in(text: str) -> list[Span]:
    """All spans in a text, in seconds and in its order: 3 - 7.5 s, 0:03 to 0:07, [3, 7.5], start 3, end 7."""
    found = ([part for part in parts if part] for parts in _SPAN.findall(" ".join(text.split())))
    return [(_seconds(start), _seconds(end)) for start, end in found]


def _seconds(time: str) -> float:
    return sum(60**power * float(part) for power, part in enumerate(reversed(time.split(":"))))


def named_span(text: str) -> Span | None:
    """The one span that a reply gives in its answer, or in the last line of it; None for several different ones."""
    tagged = parse(text).span
    answer = answer_span(text)
    for part in (answer, answer.rpartition("\n")[2]):
        spans = {tagged} if tagged is not None else set(spans_in(part))
        if len(spans) == 1:
            return spans.pop()
    return None


def span_score(sample: Sample, span: Span | None) -> float:
    """IoU with the closest span of the truth, 0 to 1; 0 for None and for an inverted span."""
    spans = sample.truth["spans"]
    return 0.0 if span is None else max((tiou(gold, span) for gold in spans), default=0.0)


def timechat_iou(sample: Sample, reply: Reply) -> float:
    """IoU of the span that TimeChat's script reads, 0 to 1."""
    return span_score(sample, timechat_span(reply.text))


def named_span_iou(sample: Sample, reply: Reply) -> float:
    """IoU of the one span that the answer gives, 0 to 1."""
    return span_score(sample, named_span(reply.text))


LEVELS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""IoUs at which QVHighlights takes the average precision."""
MAX_WINDOWS = 10
"""Of a list of windows only the first ones count."""


class Window(NamedTuple):
    """A span with the confidence in it."""

    start: float
    end: float
    score: float


def submitted_windows(text: str) -> list[Window] | None:
    """The windows of a reply in the form of submissions to QVHighlights: [[start, end, score], ...] in seconds.

    Without scores, the order is that of confidence. None for any other text, and for an empty list.
    """
    try:
        rows: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(rows, list) or not rows or not all(map(_is_window, rows)):
        return None
    return [Window(row[0], row[1], row[2] if len(row) == 3 else -place) for place, row in enumerate(rows)]


def _is_window(row: Any) -> bool:
    return (
        isinstance(row, list)
        and len(row) in (2, 3)
        and all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9 for v in row)
    )


def named_windows(text: str) -> list[Window] | None:
    """All spans of the answer of a reply, the most confident first; a list with scores is sorted by them.

    An inverted span becomes an empty one. None without spans.
    """
    answer = answer_span(text)
    windows = submitted_windows(answer) or [Window(*s, -place) for place, s in enumerate(spans_in(answer))]
    ordered = sorted(windows, key=lambda window: -window.score)
    return [Window(w.start, max(w.start, w.end), w.score) for w in ordered] or None


def average_precisions(windows: Sequence[Window], spans: Sequence[Sequence[float]]) -> Float[np.ndarray, " level"]:
    """The interpolated average precision of windows at each of `LEVELS`, as QVHighlights' script computes it, 0 to 1.

    The first `MAX_WINDOWS` windows are taken by descending score; each may hit one span, and each span is hit once. An
    IoU that is undefined, that of an inverted window as long as the span, counts as a hit.
    """
    found = np.zeros(len(LEVELS))
    if not windows or not spans:
        return found
    ordered = sorted(windows[:MAX_WINDOWS], key=lambda window: -window.score)
    overlaps = _overlaps(np.array(ordered, float)[:, :2], np.array(spans, float))
    for place, level in enumerate(LEVELS):
        hits, taken = np.zeros(len(ordered)), set[int]()
        for number, row in enumerate(overlaps):
            for span in map(int, np.argsort(row)[::-1]):
                if row[span] < level:
                    break
                if span not in taken:
                    taken.add(span)
                    hits[number] = 1
                    break
        total = np.cumsum(hits)
        found[place] = _interpolated(total / np.arange(1, len(hits) + 1), total / len(spans))
    return found


def _overlaps(a: Float[np.ndarray, "a 2"], b: Float[np.ndarray, "b 2"]) -> Float[np.ndarray, "a b"]:
    """IoUs; NaN where lengths cancel out."""
    both = np.minimum(a[:, None, 1], b[None, :, 1]) - np.maximum(a[:, None, 0], b[None, :, 0])
    both = np.clip(both, 0, None)
    with np.errstate(invalid="ignore", divide="ignore"):
        return both / ((a[:, 1] - a[:, 0])[:, None] + (b[:, 1] - b[:, 0])[None] - both)


def _interpolated(precision: Float[np.ndarray, " window"], recall: Float[np.ndarray, " window"]) -> float:
    """The area under the envelope of precision over recall (PASCAL VOC 2011)."""
    envelope = np.maximum.accumulate(np.array([0.0, *precision, 0.0])[::-1])[::-1]
    edges = np.array([0.0, *recall, 1.0])
    steps = np.flatnonzero(np.diff(edges)) + 1
    return float(np.sum((edges[steps] - edges[steps - 1]) * envelope[steps]))


def first_overlap(windows: Sequence[Window], spans: Sequence[Sequence[float]]) -> float:
    """The IoU of the first window in the list, whatever its score, with the span that it is nearest to, 0 to 1."""
    if not windows or not spans:
        return 0.0
    first = windows[0]
    row = _overlaps(np.array([first[:2]], float), np.array(spans, float))[0]
    start, end = spans[int(np.argmax(row))]
    hull = max(first.end, end) - min(first.start, start)
    both = max(0.0, min(first.end, end) - max(first.start, start))
    return both / hull if hull else 0.0


def windows_score(sample: Sample, windows: Sequence[Window] | None) -> float:
    """The mean of `average_precisions` over `LEVELS`, 0 to 1; 0 for None."""
    return float(np.mean(average_precisions(windows or (), sample.truth["spans"])))


def qvhighlights(sample: Sample, reply: Reply) -> float:
    """Average precision of a reply that is a JSON list of windows, as QVHighlights' script computes it, 0 to 1."""
    return windows_score(sample, submitted_windows(reply.text))


def qvhighlights_strict(sample: Sample, reply: Reply) -> float:
    """Average precision of the spans in the answer, the most confident first, 0 to 1."""
    return windows_score(sample, named_windows(reply.text))
