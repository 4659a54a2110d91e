"""Probe whether a model uses its media: how far log-probs of replies move when the media are blanked or swapped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from mmpost.data.media.media import Media, media
from mmpost.types import Context, Gold, Part, Reply, Sample

MAX_PROBES = 8
"""Samples per probe, which takes four forward passes over one reply of each."""


@dataclass(frozen=True)
class MediaUse:
    """Mean absolute change of the log-prob of a reply token under each change of the input, in nats."""

    blank: float | None
    """With all media blanked at their size; None where no modality has a blank."""
    swap: float | None
    """With the media of another sample; None where no two samples have different media of the same modalities."""
    noise: float
    """With only the batch changed (each sample alone, or all together): the noise floor of the arithmetic."""

    @property
    def unused(self) -> bool:
        """Whether no log-prob moved at all, in a comparison of batches of equal shape."""
        return (self.swap if self.blank is None else self.blank) == 0.0

    @property
    def doubtful(self) -> bool:
        """Whether a change is less than three times the noise."""
        return any(v is not None and v < 3 * self.noise for v in (self.blank, self.swap))

    def numbers(self) -> dict[str, float]:
        """The metrics to log."""
        changes = {"probe/blank": self.blank, "probe/swap": self.swap, "probe/noise": self.noise}
        return {name: value for name, value in changes.items() if value is not None}


def measure_media_use(samples: Sequence[Sample], context: Context) -> MediaUse | None:
    """Probe one reply of each of the first `MAX_PROBES` samples with media and an encoded reply; None without any.

    Swapped media may change the length of the prompt, so that change also contains noise from the different shapes.
    """
    probed = [replace(s, replies=_probed_reply(s)) for s in samples if _media(s) and _probed_reply(s)][:MAX_PROBES]
    if not probed:
        return None
    batched = _logp(probed, context)
    one_by_one = list(chain.from_iterable(_logp([s], context) for s in probed))
    return MediaUse(
        _mean_change(probed, [blank_media(s) for s in probed], context, batched),
        _mean_change(probed, [_with_swapped_media(s, probed) for s in probed], context, batched),
        _mean_difference(batched, one_by_one),
    )


def with_gold(samples: Sequence[Sample], gold: Sequence[Gold], context: Context) -> list[Sample]:
    """Each sample with a correct reply: the task's plainest, else that of the data; samples without one are dropped."""
    with_reply = []
    for sample in samples:
        text = gold[0].text(sample) if gold else None
        if text is None:
            text = next((r.text for r in sample.replies if r.origin != "policy"), None)
        if text is not None:
            with_reply.append(replace(sample, replies=(context.encode_reply(text, "data"),)))
    return with_reply


def blank_media(sample: Sample) -> Sample | None:
    """The sample with blanked media (a gray image, silence, ...); None where none of them can be blanked."""
    blanks = [m.blank() for m in _media(sample)]
    return None if all(b is None for b in blanks) else _replace_media(sample, blanks)


def _with_swapped_media(sample: Sample, samples: Sequence[Sample]) -> Sample | None:
    """The sample with the media of the next one that has different media of the same modalities; None without one."""
    original, index = _media(sample), samples.index(sample)
    for candidate in (*samples[index + 1 :], *samples[:index]):
        other = _media(candidate)
        if [m.modality for m in other] == [m.modality for m in original] and other != original:
            return _replace_media(sample, other)
    return None


def _mean_change(
    samples: Sequence[Sample], changed: Sequence[Sample | None], context: Context, before: list[float]
) -> float | None:
    """Mean absolute change of the log-probs `before`, over the samples that could be changed; None without any."""
    if all(c is None for c in changed):
        return None
    # Samples that could not be changed stay in the batch, to preserve its shape; they are not counted.
    after = _logp([c or s for s, c in zip(samples, changed, strict=True)], context)
    counted = [c is not None for s, c in zip(samples, changed, strict=True) for _ in s.replies[0].token_ids or ()]
    return _mean_difference(
        [logp for logp, use in zip(before, counted, strict=True) if use],
        [logp for logp, use in zip(after, counted, strict=True) if use],
    )


def _logp(samples: Sequence[Sample], context: Context) -> list[float]:
    return [value for replies in context.logp(samples, "policy") for value in replies[0]]


def _mean_difference(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(abs(x - y) for x, y in zip(a, b, strict=True)) / max(1, len(a))


def _probed_reply(sample: Sample) -> tuple[Reply, ...]:
    """At most one encoded reply, preferably one that the policy did not sample."""
    encoded = [r for r in sample.replies if r.token_ids]
    return tuple(([r for r in encoded if r.origin != "policy"] or encoded)[:1])


def _media(sample: Sample) -> list[Media]:
    return [media(p.value, p.modality) for p in sample.prompt if p.modality != "text"]


def _replace_media(sample: Sample, new: Sequence[Media | None]) -> Sample:
    """The sample with its media replaced in order; None keeps a medium."""
    remaining = iter(new)
    parts = []
    for part in sample.prompt:
        value = None if part.modality == "text" else next(remaining)
        parts.append(part if value is None else Part(part.modality, value, part.role))
    return replace(sample, prompt=tuple(parts))
