"""Rows, media and lengths, before any weight is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmpost.checks.report import Report, number
from mmpost.data.media.media import media
from mmpost.errors import DataError
from mmpost.models.chat.prompt_lengths import Length, PromptLengths
from mmpost.training.context import with_location
from mmpost.types import Sample, Source, Split, Stage, Task

MADE = 512
"""Samples that are looked at of a source that makes them; files are read whole."""
DECODED = 512
"""Media of one source that are decoded, spread evenly; the headers of all are read."""
EXACT = 8
"""Prompts that go through the processor, to see whether header sizes tell their lengths."""
MEASURED = 64
"""Prompts that go through the processor where header sizes do not tell."""
BARS = 8


@dataclass
class Reading:
    """What reading one source showed."""

    name: str
    source: Source
    training: bool
    good: list[int] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    media: Counter[str] = field(default_factory=Counter)
    sketches: dict[str, str] = field(default_factory=dict)
    """The first medium of each kind that can be drawn as a line."""
    decoded: int = 0
    read: int = 0

    def samples(self, most: int) -> list[Sample]:
        """At most `most` usable samples, spread evenly."""
        return [self.source[i] for i in spread(self.good, most)]


def spread(items: Sequence[int], most: int) -> list[int]:
    """At most `most` of the items, evenly over all."""
    step = max(1.0, len(items) / most)
    return [items[int(i * step)] for i in range(min(most, len(items)))]


_SPLITS: tuple[Split, ...] = ("val", "test")


def sources(task: Task, stages: Sequence[Stage]) -> list[Reading]:
    """Everything that a run reads, each source once."""
    found = [Reading(f"train, stage {s.name}", s.source, True) for s in stages]
    found += [Reading(f"{split}, bench {b.name}", b.source, False) for split in _SPLITS for b in task.benches(split)]
    seen: dict[int, Reading] = {}
    for reading in found:
        seen.setdefault(id(reading.source), reading)
    return list(seen.values())


def check_data(readings: Sequence[Reading], report: Report, skips: bool) -> None:
    """Read all rows, all headers and some media; broken ones are errors, or warnings where the run skips them."""
    report.section("data")
    for reading in readings:
        with report.guard():
            _read(reading)
    rows = [
        (r.name, number(r.read), number(len(r.broken)), _kinds(r.media), number(r.decoded), number(len(r.source)))
        for r in readings
    ]
    names = ("split", "read", "broken", "media headers", "decoded", "samples")
    report.table(*names, rows=rows, right=(1, 2, 4, 5))
    for reading in readings:
        for kind, sketch in reading.sketches.items():
            report.say(f"{reading.name}, the first {kind}: {sketch}")
        (report.warn if skips else report.error)(*reading.broken)
        if reading.broken and skips:
            share = len(reading.broken) / reading.read
            report.say(f"{reading.name}: {len(reading.broken)} rows will be skipped ({share:.1%}; data.on_error=skip)")
        if not reading.good and not (reading.broken and not skips):
            report.error(f"{reading.name}: not one usable sample")


def _kinds(found: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in found.items()) or "none"


def _read(reading: Reading) -> None:
    size = len(reading.source)
    # Files can say where a row stands; what cannot makes its samples, any number of them.
    chosen = range(size) if hasattr(reading.source, "where") else spread(range(size), MADE)
    decode = set(spread(chosen, DECODED))
    for index in chosen:
        reading.read += 1
        try:
            sample = reading.source[index]
            for part in (*sample.prompt, *(p for r in sample.replies for p in r.parts)):
                if part.modality != "text":
                    medium = media(part.value, part.modality)
                    medium.header()
                    reading.media[part.modality] += 1
                    if index in decode:
                        medium.open()
                        reading.decoded += 1
                        if part.modality not in reading.sketches and (sketch := medium.sketch()):
                            reading.sketches[part.modality] = sketch
        except DataError as e:
            reading.broken.append(with_location(reading.source, index, str(e)))
        else:
            reading.good.append(index)


def check_lengths(readings: Sequence[Reading], lengths: PromptLengths, reply: int, report: Report, skips: bool) -> None:
    """Histogram of media tokens, summary of lengths, and prompts that do not fit; `reply`: most tokens of a reply."""
    report.section("lengths")
    rows = []
    for reading in (r for r in readings if r.good):
        found, how = _lengths(reading, lengths, report, skips)
        if not found:
            continue
        tokens, seen = np.array([f.tokens for f in found]), np.array([f.media for f in found])
        rows.append((reading.name, number(len(found)), *(_summary(a) for a in (tokens, seen)), how))
        if reading.training and seen.any():
            _histogram(seen, report)
        _fit(reading, tokens, lengths.limit, reply, report)
    if rows:
        columns = ("split", "prompts", "tokens: min median max", "of media: min median max", "measured")
        report.table(*columns, rows=rows, right=(1,))
        report.say(
            f"Nothing is ever cut, in a medium or elsewhere. Positions of the model: {lengths.limit or 'unknown'}."
        )


def _summary(values: Any) -> str:
    return " ".join(number(float(v)) for v in (values.min(), np.median(values), values.max()))


def _lengths(reading: Reading, lengths: PromptLengths, report: Report, skips: bool) -> tuple[list[Length], str]:
    """Lengths by header sizes where the processor confirms them on some prompts, else through the processor."""
    exact, agree = [], True
    for index in spread(reading.good, MEASURED):
        sample = reading.source[index]
        try:
            measured = lengths.exact(sample)
        except DataError as e:
            (report.warn if skips else report.error)(with_location(reading.source, index, str(e)))
            reading.good.remove(index)
            continue
        exact.append(measured)
        estimate = lengths.estimate(sample)
        agree = agree and estimate is not None and estimate.tokens == measured.tokens
        if agree and len(exact) == EXACT:
            break
    if agree and exact:
        estimates = [lengths.estimate(reading.source[i]) for i in reading.good]
        return [e for e in estimates if e is not None], f"headers; exact on {len(exact)}"
    return exact, f"processor, on {len(exact)}"


def _histogram(seen: Any, report: Report) -> None:
    """Media tokens per prompt."""
    low, high = int(seen.min()), int(seen.max())
    bins = min(BARS, high - low + 1)
    counts, edges = np.histogram(seen, bins=bins, range=(low, high + 1))
    rows = [
        (_bin(int(np.ceil(a)), int(np.ceil(b)) - 1), number(int(n)), "█" * int(np.ceil(40 * n / counts.max())))
        for n, a, b in zip(counts, edges, edges[1:], strict=False)
    ]
    report.table("media tokens", "prompts", "", rows=rows, right=(0, 1))


def _bin(low: int, high: int) -> str:
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def _fit(reading: Reading, tokens: Any, limit: int | None, reply: int, report: Report) -> None:
    if limit is None:
        return
    over = np.flatnonzero(tokens > limit)
    if len(over):
        report.error(
            f"{reading.name}: {len(over)} prompts have more than the model's {limit} positions (the longest "
            f"{tokens.max()}); nothing is cut: lower model.max_pixels, or drop these rows"
        )
    tight = int((tokens + reply > limit).sum()) - len(over)
    if tight:
        report.warn(
            f"{reading.name}: {tight} prompts leave fewer than {reply} of the model's {limit} positions to the reply"
        )
