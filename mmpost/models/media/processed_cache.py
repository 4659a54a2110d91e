"""Media through a model's processor: each once, kept by content and bounded by bytes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature

from mmpost.data.media.cache import Cache
from mmpost.data.media.media import Media
from mmpost.models.media.processors import MediaProcessor

OURS = ("video_metadata", "do_sample_frames", "sampling_rate")
"""What a call of the whole processor says of its media; each medium says it again when it is processed."""


@dataclass(frozen=True)
class MediaInput:
    """What an encoder reads of one image, video or sound; of all of a prompt where they cannot be taken apart."""

    key: str
    """Hash of the processed tensors: equal pictures have equal features."""
    load: Callable[[], Mapping[str, Tensor]]
    """Pixels, grids and the like; processed again where memory has let go of them."""
    media: int = 1
    nbytes: int = 0
    """What it holds by itself, outside of the bounded cache."""
    modality: str = "image"
    """Of the media; empty for a prompt whose kinds could not be told apart."""


@dataclass(frozen=True)
class _Done:
    """Output of the part of the processor for one kind."""

    features: Mapping[str, Any]
    key: str

    @property
    def nbytes(self) -> int:
        return sum(v.nbytes for v in self.features.values() if isinstance(v, Tensor))


Group = tuple[Media, ...]
"""Media of one kind that are processed together."""


class ProcessedMediaCache:
    """The parts of a model's processor, each asked once per medium, or once per group where neighbours matter."""

    def __init__(self, intakes: Mapping[str, MediaProcessor], limit: int) -> None:
        self.intakes = intakes
        self.processed = 0
        """Media that went through so far; those of the probes are not counted."""
        self._kept, self._lock = Cache(limit), threading.Lock()
        self._apart: dict[tuple[str, str], bool] = {}
        self._options: dict[str, dict[str, Any]] = {}

    def groups(self, media: Sequence[Media], options: Mapping[str, Any]) -> list[Group]:
        """What of these, all of one kind, is processed together: each alone, or all, where one alone is different."""
        if len(media) <= 1 or self._separable(media[0].modality, options):
            return [(m,) for m in media]
        return [tuple(media)]

    def done(self, group: Group, options: Mapping[str, Any]) -> _Done:
        """Output for these media; raises DataError for one that cannot be used."""
        key = (repr(sorted(options.items())), group[0].modality, tuple(m.hash for m in group))
        return self._kept.get(key, lambda: self._process(group, options), lambda d: d.nbytes)

    def ahead(self, media: Sequence[Media]) -> None:
        """Process what will be asked for soon; may run on another thread, and does nothing before a kind's first."""
        for kind, options in list(self._options.items()):
            for group in self.groups([m for m in media if m.modality == kind], options):
                self.done(group, options)

    def bound(self, kind: str, media: Sequence[Media]) -> ProcessorStub:
        """What stands for the part of the processor for `kind` in one call of the whole, about these media."""
        return ProcessorStub(self, self.intakes[kind], media)

    def count(self, media: int) -> None:
        with self._lock:
            self.processed += media

    def _process(self, group: Group, options: Mapping[str, Any]) -> _Done:
        intake = self.intakes[group[0].modality]
        features = intake.run([intake.open(m) for m in group], dict(options))
        self.count(len(group))
        return _Done(features, digest(features))

    def _separable(self, kind: str, options: Mapping[str, Any]) -> bool:
        name = (kind, repr(sorted(options.items())))
        if name not in self._apart:
            self._apart[name] = self._same(self.intakes[kind], dict(options))
        return self._apart[name]

    def _same(self, intake: MediaProcessor, options: dict[str, Any]) -> bool:
        """Whether outputs for each, put one after the other, are the output for both."""
        probes = intake.probes()
        try:
            together = intake.run(probes, options)
            apart = merged([intake.run([probe], options) for probe in probes])
        except (TypeError, ValueError, RuntimeError, IndexError):  # it does not take two, or they do not go together
            return False
        return together.keys() == apart.keys() and digest(together) == digest(apart)


class ProcessorStub:
    """A part of the processor that already knows what it will be asked for, and asks the real one for new media."""

    def __init__(self, pixels: ProcessedMediaCache, intake: MediaProcessor, media: Sequence[Media]) -> None:
        self.pixels, self.intake, self.media = pixels, intake, media
        self.options: dict[str, Any] | None = None
        """What it was called with, but for what media say of themselves; None before."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.intake.inner, name)

    def __call__(self, _: Any, **options: Any) -> BatchFeature:
        self.options = self.pixels._options[self.intake.modality] = {k: v for k, v in options.items() if k not in OURS}
        found = merged([self.pixels.done(g, self.options).features for g in self._groups()])
        for old, new in self.intake.renamed:
            if new in found:  # as the whole processor, which renames it, expects it
                found[old] = found.pop(new)
        return BatchFeature(found)

    def names(self) -> set[str]:
        """Of what its part puts out; nothing where code of its own went another way."""
        groups = self._groups() if self.options is not None else []
        return set(self.pixels.done(groups[0], self.options or {}).features) if groups else set()

    def pictures(self, names: Sequence[str]) -> tuple[MediaInput, ...]:
        """Its media as pictures with the tensors of these names."""
        return tuple(self._picture(group, self.options or {}, tuple(names)) for group in self._groups())

    def _groups(self) -> list[Group]:
        return self.pixels.groups(self.media, self.options or {})

    def _picture(self, group: Group, options: dict[str, Any], names: tuple[str, ...]) -> MediaInput:
        pixels = self.pixels

        def load() -> dict[str, Tensor]:
            features = pixels.done(group, options).features
            return {name: torch.as_tensor(features[name]) for name in names}

        return MediaInput(pixels.done(group, options).key, load, len(group), modality=self.intake.modality)


def pictures(bounds: Sequence[ProcessorStub], wanted: Mapping[str, Tensor]) -> tuple[MediaInput, ...]:
    """The media of a prompt as pictures with the tensors in `wanted`, the media inputs that its processor returned."""
    for bound in bounds:
        if bound.options is None:  # code of its own, which goes another way
            bound.pixels.count(len(bound.media))
    names = [bound.names() for bound in bounds]
    if wanted and wanted.keys() <= set().union(*names):
        own = [[name for name in wanted if name in known] for known in names]
        return tuple(p for bound, mine in zip(bounds, own, strict=True) for p in bound.pictures(mine))
    kinds = {bound.intake.modality for bound in bounds}
    media, nbytes = sum(len(b.media) for b in bounds), sum(t.nbytes for t in wanted.values())
    return (MediaInput(digest(wanted), lambda: wanted, media, nbytes, kinds.pop() if len(kinds) == 1 else ""),)


def merged(outputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One output of several: tensors and lists one after the other. Raises ValueError where they do not fit."""
    if len(outputs) == 1:
        return dict(outputs[0])
    found: dict[str, Any] = {}
    for name, first in outputs[0].items():
        values = [output[name] for output in outputs]
        if isinstance(first, Tensor):
            if len({v.shape[1:] for v in values}) != 1:
                raise ValueError(f"{name}: shapes that cannot be put one after the other")
            found[name] = torch.cat(values)
        elif isinstance(first, list):
            found[name] = [item for value in values for item in value]
        elif any(value != first for value in values):
            raise ValueError(f"{name}: {type(first).__name__} of several images")
        else:
            found[name] = first
    return found


def digest(features: Mapping[str, Any]) -> str:
    """Hash of names, shapes, types and values."""
    found = hashlib.sha256()
    for name in sorted(features):
        value = features[name]
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            found.update(f"{name} {tuple(plain.shape)} {plain.dtype}".encode())
            found.update(plain.flatten().view(torch.uint8).numpy().data)
        else:
            found.update(f"{name} {value!r}".encode())
    return found.hexdigest()
