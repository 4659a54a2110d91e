"""Are the media used at all? How far log-probs of replies move when media say nothing, or something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from mmpost.data.media.media import Media, media
from mmpost.types import Context, Gold, Part, Reply, Sample

MOST = 8
"""Samples of one probe: it costs four forwards of one reply to each."""


@dataclass(frozen=True)
class MediaUse:
    """Mean absolute change of the log-prob of a reply token, in nats."""

    blank: float | None
    """With every medium blanked, its sizes kept; None where no kind of medium has a blank."""
    swap: float | None
    """With the media of another sample; None where all samples have the same."""
    noise: float
    """With nothing changed but the batch: each sample alone, against all together. What the arithmetic itself does."""

    @property
    def unused(self) -> bool:
        """Not one log-prob moved, in the comparison whose shapes are the same."""
        return (self.swap if self.blank is None else self.blank) == 0.0

    @property
    def doubtful(self) -> bool:
        """Less than three times the noise."""
        return any(v is not None and v < 3 * self.noise for v in (self.blank, self.swap))

    def numbers(self) -> dict[str, float]:
        """For the log."""
        found = {"probe/blank": self.blank, "probe/swap": self.swap, "probe/noise": self.noise}
        return {name: value for name, value in found.items() if value is not None}


def measure_media_use(samples: Sequence[Sample], context: Context) -> MediaUse | None:
    """Probe with the first reply of at most `MOST` samples that have media and a reply with tokens; None without any.

    Prompts of swapped media may have another length, so their change contains the noise of other shapes too.
    """
    seen = [replace(s, replies=_plainest(s)) for s in samples if _media(s) and _plainest(s)][:MOST]
    if not seen:
        return None
    together = _logp(seen, context)
    alone = list(chain.from_iterable(_logp([s], context) for s in seen))
    return MediaUse(
        _moved(seen, blank_media, context, together), _swap(seen, context, together), _mean(together, alone)
    )


def with_gold(samples: Sequence[Sample], gold: Sequence[Gold], context: Context) -> list[Sample]:
    """Each sample with one reply: the plainest right one that the task knows, else the data's own; others left out."""
    found = []
    for sample in samples:
        text = gold[0].text(sample) if gold else None
        if text is None:
            text = next((r.text for r in sample.replies if r.origin != "policy"), None)
        if text is not None:
            found.append(replace(sample, replies=(context.encode_reply(text, "data"),)))
    return found


def blank_media(sample: Sample) -> Sample | None:
    """The sample with media that say nothing; None where none of them can be blanked."""
    blanks = [m.blank() for m in _media(sample)]
    return None if all(b is None for b in blanks) else _put(sample, blanks)


def _swap(seen: Sequence[Sample], context: Context, together: list[float]) -> float | None:
    """Each sample with the media of the next one that has as many of each kind, and others."""

    def other(sample: Sample) -> Sample | None:
        own = _media(sample)
        at = seen.index(sample)
        for candidate in (*seen[at + 1 :], *seen[:at]):
            theirs = _media(candidate)
            if [m.modality for m in theirs] == [m.modality for m in own] and theirs != own:
                return _put(sample, theirs)
        return None

    return _moved(seen, other, context, together)


def _moved(
    seen: Sequence[Sample], change: Callable[[Sample], Sample | None], context: Context, together: list[float]
) -> float | None:
    changed = [change(sample) for sample in seen]
    if all(c is None for c in changed):
        return None
    # Those that cannot change stay, so that the shapes of the batch do; they are not counted.
    after = _logp([c or s for s, c in zip(seen, changed, strict=True)], context)
    counted = [c is not None for s, c in zip(seen, changed, strict=True) for _ in s.replies[0].token_ids or ()]
    return _mean(
        [a for a, use in zip(together, counted, strict=True) if use],
        [a for a, use in zip(after, counted, strict=True) if use],
    )


def _logp(samples: Sequence[Sample], context: Context) -> list[float]:
    return [value for replies in context.logp(samples, "policy") for value in replies[0]]


def _mean(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(abs(x - y) for x, y in zip(a, b, strict=True)) / max(1, len(a))


def _plainest(sample: Sample) -> tuple[Reply, ...]:
    """One reply, that of the data or truth where there is one."""
    written = [r for r in sample.replies if r.token_ids]
    return tuple(([r for r in written if r.origin != "policy"] or written)[:1])


def _media(sample: Sample) -> list[Media]:
    return [media(p.value, p.modality) for p in sample.prompt if p.modality != "text"]


def _put(sample: Sample, new: Sequence[Media | None]) -> Sample:
    """The sample with these media in the places of its own; None keeps one."""
    left = iter(new)
    parts = []
    for part in sample.prompt:
        value = None if part.modality == "text" else next(left)
        parts.append(part if value is None else Part(part.modality, value, part.role))
    return replace(sample, prompt=tuple(parts))
