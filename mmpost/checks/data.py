"""Checks of rows, media and prompt lengths, before any weights are loaded."""

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
from mmpost.runs.configured_task import ConfiguredTask
from mmpost.training.context import location, with_location
from mmpost.types import Sample, Source, Split, Stage

MAX_GENERATED = 512
"""Samples to read from a source that generates them; sources backed by files are read completely."""
MAX_DECODED = 512
"""Samples per source whose media are decoded, evenly spaced; the headers of all media are read."""
CONFIRMATIONS = 8
"""Prompts to run through the processor to confirm that lengths can be computed from media headers."""
MAX_PROCESSED = 64
"""Prompts to run through the processor if headers do not give their lengths."""
MAX_BINS = 8


@dataclass
class SourceCheck:
    """One source, and the results of reading it."""

    name: str
    source: Source
    training: bool
    usable: list[int] = field(default_factory=list)
    """Indices of the samples that could be read."""
    broken: list[str] = field(default_factory=list)
    """Error messages of the other samples."""
    media: Counter[str] = field(default_factory=Counter)
    """Number of media headers read, by modality."""
    sketches: dict[str, str] = field(default_factory=dict)
    """A one-line text plot of the first medium of each modality that has one."""
    decoded: int = 0
    """Number of media decoded."""
    read: int = 0
    """Number of samples read."""

    def samples(self, limit: int) -> list[Sample]:
        """At most `limit` usable samples, evenly spaced."""
        return [self.source[i] for i in evenly_spaced(self.usable, limit)]


def evenly_spaced(items: Sequence[int], limit: int) -> list[int]:
    """At most `limit` of the items, evenly spaced."""
    step = max(1.0, len(items) / limit)
    return [items[int(i * step)] for i in range(min(limit, len(items)))]


_SPLITS: tuple[Split, ...] = ("val", "test")


def sources_to_check(task: ConfiguredTask, stages: Sequence[Stage]) -> list[SourceCheck]:
    """All sources that a run reads, each of them once."""
    sources = [SourceCheck(f"train, stage {s.name}", s.source, True) for s in stages]
    sources += [
        SourceCheck(f"{split}, bench {b.name}", b.source, False) for split in _SPLITS for b in task.benches(split)
    ]
    unique: dict[int, SourceCheck] = {}
    for source in sources:
        unique.setdefault(id(source.source), source)
    return list(unique.values())


def check_data(sources: Sequence[SourceCheck], report: Report, skip_broken: bool) -> None:
    """Read all rows, all media headers and some media. Broken rows are errors, or warnings if the run skips them."""
    report.section("data")
    for source in sources:
        with report.guard():
            _read(source)
    rows = []
    for s in sources:
        headers = ", ".join(f"{count} {modality}" for modality, count in s.media.items()) or "none"
        rows.append((s.name, number(s.read), number(len(s.broken)), headers, number(s.decoded), number(len(s.source))))
    names = ("split", "read", "broken", "media headers", "decoded", "samples")
    report.table(*names, rows=rows, right=(1, 2, 4, 5))
    for source in sources:
        for modality, sketch in source.sketches.items():
            report.say(f"{source.name}, first {modality}: {sketch}")
        (report.warn if skip_broken else report.error)(*source.broken)
        if source.broken and skip_broken:
            fraction = len(source.broken) / source.read
            report.say(f"{source.name}: {len(source.broken)} rows will be skipped ({fraction:.1%}; data.on_error=skip)")
        if not source.usable and not (source.broken and not skip_broken):
            report.error(f"{source.name}: no usable sample")


def _read(check: SourceCheck) -> None:
    size = len(check.source)
    # Sources backed by files have `where`; the others generate their samples and may be arbitrarily long.
    indices = range(size) if hasattr(check.source, "where") else evenly_spaced(range(size), MAX_GENERATED)
    to_decode = set(evenly_spaced(indices, MAX_DECODED))
    for index in indices:
        check.read += 1
        try:
            sample = check.source[index]
            for part in (*sample.prompt, *(p for r in sample.replies for p in r.parts)):
                if part.modality != "text":
                    medium = media(part.value, part.modality)
                    medium.header()
                    check.media[part.modality] += 1
                    if index in to_decode:
                        medium.open()
                        check.decoded += 1
                        if part.modality not in check.sketches and (sketch := medium.sketch()):
                            check.sketches[part.modality] = sketch
        except DataError as e:
            check.broken.append(with_location(check.source, index, str(e)))
        else:
            check.usable.append(index)


def check_lengths(
    sources: Sequence[SourceCheck], lengths: PromptLengths, max_reply_tokens: int, report: Report, skip_broken: bool
) -> None:
    """Print a histogram of media tokens and statistics of prompt lengths; report prompts that exceed the model's
    positions, or leave fewer than `max_reply_tokens` of them for the reply.
    """
    report.section("lengths")
    rows = []
    for source in (s for s in sources if s.usable):
        measured, method = _measure(source, lengths, report, skip_broken)
        if not measured:
            continue
        tokens, media_tokens = (np.array([getattr(m, k) for m in measured.values()]) for k in ("tokens", "media"))
        statistics = [
            " ".join(number(float(v)) for v in (a.min(), np.median(a), a.max())) for a in (tokens, media_tokens)
        ]
        rows.append((source.name, number(len(measured)), *statistics, method))
        if source.training and media_tokens.any():
            _histogram(media_tokens, report)
        longest = location(source.source, max(measured, key=lambda index: measured[index].tokens))
        _check_limit(source, tokens, longest, lengths.limit, max_reply_tokens, report, skip_broken)
    if rows:
        columns = ("split", "prompts", "tokens: min median max", "media tokens: min median max", "measured by")
        report.table(*columns, rows=rows, right=(1,))
        report.say(f"Prompts are never truncated. The model has {lengths.limit or 'an unknown number of'} positions.")


def _measure(
    source: SourceCheck, lengths: PromptLengths, report: Report, skip_broken: bool
) -> tuple[dict[int, Length], str]:
    """Prompt lengths by index in the source, and how they were measured: from the media headers of all prompts if the
    processor confirms these lengths on a few prompts, else by the processor on some prompts.
    """
    exact: dict[int, Length] = {}
    agree = True
    for index in evenly_spaced(source.usable, MAX_PROCESSED):
        sample = source.source[index]
        try:
            length = lengths.exact(sample)
        except DataError as e:
            (report.warn if skip_broken else report.error)(with_location(source.source, index, str(e)))
            source.usable.remove(index)
            continue
        exact[index] = length
        estimate = lengths.estimate(sample)
        agree = agree and estimate is not None and estimate.tokens == length.tokens
        if agree and len(exact) == CONFIRMATIONS:
            break
    if agree and exact:
        estimates = {i: lengths.estimate(source.source[i]) for i in source.usable}
        return {i: e for i, e in estimates.items() if e is not None}, f"headers; exact on {len(exact)}"
    return exact, f"processor, on {len(exact)}"


def _histogram(media_tokens: Any, report: Report) -> None:
    low, high = int(media_tokens.min()), int(media_tokens.max())
    bins = min(MAX_BINS, high - low + 1)
    counts, edges = np.histogram(media_tokens, bins=bins, range=(low, high + 1))
    rows = []
    for count, start, end in zip(counts, edges, edges[1:], strict=False):
        first, last = int(np.ceil(start)), int(np.ceil(end)) - 1
        label = number(first) if first == last else f"{number(first)} to {number(last)}"
        rows.append((label, number(int(count)), "█" * int(np.ceil(40 * count / counts.max()))))
    report.table("media tokens", "prompts", "", rows=rows, right=(0, 1))


def _check_limit(
    source: SourceCheck,
    tokens: Any,
    longest: str,
    limit: int | None,
    max_reply_tokens: int,
    report: Report,
    skip_broken: bool,
) -> None:
    if limit is None:
        return
    too_long = np.flatnonzero(tokens > limit)
    if len(too_long):
        (report.warn if skip_broken else report.error)(
            f"{source.name}: {len(too_long)} prompts exceed the model's {limit} positions (longest: {tokens.max()}, "
            f"{longest}), and prompts are never truncated; lower model.max_pixels or drop these rows"
        )
    tight = int((tokens + max_reply_tokens > limit).sum()) - len(too_long)
    if tight:
        report.warn(
            f"{source.name}: {tight} prompts leave fewer than {max_reply_tokens} of the model's {limit} positions for "
            "the reply"
        )
