"""Images through a model's image processor: each once, kept by content and bounded by bytes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature

from mmpost.data.cache import Cache
from mmpost.data.media import Media

PROBES = ((64, 96), (80, 48))
"""Heights and widths of the two images that show whether a family processes neighbours apart."""


@dataclass(frozen=True)
class Picture:
    """What a vision tower reads of one image; of all images of a prompt where the family does not treat them apart."""

    key: str
    """Hash of the processed tensors: equal pictures have equal features."""
    load: Callable[[], Mapping[str, Tensor]]
    """Pixels, grids and the like; processed again where memory has let go of them."""
    images: int = 1
    nbytes: int = 0
    """What it holds by itself, outside of the bounded cache."""


@dataclass(frozen=True)
class _Done:
    """Output of the image processor."""

    features: Mapping[str, Any]
    key: str

    @property
    def nbytes(self) -> int:
        return sum(v.nbytes for v in self.features.values() if isinstance(v, Tensor))


class Pixels:
    """The image processor of a model, asked once per image, or once per group of images where neighbours matter."""

    def __init__(self, inner: Any, limit: int) -> None:
        self.inner = inner
        self.processed = 0
        """Images that went through it so far; the two of the probe are not counted."""
        self._kept, self._lock = Cache(limit), threading.Lock()
        self._apart: dict[str, bool] = {}
        self._options: dict[str, Any] | None = None

    def groups(self, media: Sequence[Media], options: Mapping[str, Any]) -> list[tuple[Media, ...]]:
        """The images that are processed together: each alone, or all, where one alone comes out differently."""
        return [(m,) for m in media] if len(media) == 1 or self._separable(options) else [tuple(media)]

    def done(self, group: tuple[Media, ...], options: Mapping[str, Any]) -> _Done:
        """Output for these images; raises DataError for a file that cannot be read."""
        key = (repr(sorted(options.items())), tuple(m.hash for m in group))
        return self._kept.get(key, lambda: self._process(group, options), lambda d: d.nbytes)

    def ahead(self, media: Sequence[Media]) -> None:
        """Process what will be asked for soon; may run on another thread, and does nothing before the first prompt."""
        if self._options is not None and media:
            for group in self.groups(media, self._options):
                self.done(group, self._options)

    def bound(self, media: Sequence[Media]) -> Bound:
        """What stands for the image processor in one call of the whole processor, about these images."""
        return Bound(self, media)

    def count(self, images: int) -> None:
        with self._lock:
            self.processed += images

    def _process(self, group: tuple[Media, ...], options: Mapping[str, Any]) -> _Done:
        features = dict(self.inner([[m.open() for m in group]], **options))
        self.count(len(group))
        return _Done(features, digest(features))

    def _separable(self, options: Mapping[str, Any]) -> bool:
        name = repr(sorted(options.items()))
        if name not in self._apart:
            pictures = [(np.arange(h * w * 3) % 251).astype(np.uint8).reshape(h, w, 3) for h, w in PROBES]
            self._apart[name] = self._same(pictures, options)
        return self._apart[name]

    def _same(self, pictures: list[Any], options: Mapping[str, Any]) -> bool:
        """Whether outputs for each, put one after the other, are the output for both."""
        try:
            together = dict(self.inner([pictures], **options))
            apart = merged([dict(self.inner([[p]], **options)) for p in pictures])
        except (TypeError, ValueError, RuntimeError, IndexError):  # it does not take two, or they do not go together
            return False
        return together.keys() == apart.keys() and digest(together) == digest(apart)


class Bound:
    """An image processor that already knows which images it will be asked for, and asks the real one for new ones."""

    def __init__(self, pixels: Pixels, media: Sequence[Media]) -> None:
        self.pixels, self.media = pixels, media
        self.options: dict[str, Any] | None = None
        """What it was called with; None before."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pixels.inner, name)

    def __call__(self, images: Any, **options: Any) -> BatchFeature:
        self.options = self.pixels._options = options
        found = [self.pixels.done(g, options).features for g in self.pixels.groups(self.media, options)]
        return BatchFeature(merged(found))

    def pictures(self, wanted: Mapping[str, Tensor]) -> tuple[Picture, ...]:
        """The images as pictures with the tensors named in `wanted`, the media inputs that the processor returned."""
        if self.options is None:  # code of its own, which goes another way
            self.pixels.count(len(self.media))
        options = self.options or {}
        groups = self.pixels.groups(self.media, options) if self.options is not None else []
        if not groups or not wanted.keys() <= self.pixels.done(groups[0], options).features.keys():
            return (Picture(digest(wanted), lambda: wanted, len(self.media), sum(t.nbytes for t in wanted.values())),)
        return tuple(self._picture(group, options, tuple(wanted)) for group in groups)

    def _picture(self, group: tuple[Media, ...], options: Mapping[str, Any], names: tuple[str, ...]) -> Picture:
        pixels = self.pixels

        def load() -> dict[str, Tensor]:
            features = pixels.done(group, options).features
            return {name: torch.as_tensor(features[name]) for name in names}

        return Picture(pixels.done(group, options).key, load, len(group))


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
