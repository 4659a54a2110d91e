"""Processed media (pixel values, grids, spectrograms), each computed once, cached by content and bounded in bytes."""

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

DESCRIPTIONS = ("video_metadata", "do_sample_frames", "sampling_rate")
"""Keyword arguments that describe the media of one call, other than options; `MediaProcessor.call` gives them anew."""


@dataclass(frozen=True)
class MediaInput:
    """What an encoder reads of one image, video or audio clip; of all media of a prompt where they are inseparable."""

    key: str
    """Hash of the processed tensors: equal inputs have equal features."""
    load: Callable[[], Mapping[str, Tensor]]
    """Pixel values, grids and the like; recomputed where the cache has evicted them."""
    num_media: int = 1
    nbytes: int = 0
    """Bytes that it holds itself, outside of the bounded cache."""
    modality: str = "image"
    """Empty for the inseparable media of several modalities."""


@dataclass(frozen=True)
class ProcessedMedia:
    """Output of a sub-processor for one group of media."""

    features: Mapping[str, Any]
    key: str

    @property
    def nbytes(self) -> int:
        return sum(v.nbytes for v in self.features.values() if isinstance(v, Tensor))


Group = tuple[Media, ...]
"""Media of one modality that are processed together."""


class ProcessedMediaCache:
    """Runs a processor's sub-processors once per medium, or once per group where neighbors change the output."""

    def __init__(self, processors: Mapping[str, MediaProcessor], max_bytes: int) -> None:
        self.processors = processors
        self.num_processed = 0
        """Media processed so far; `ChatModel` resets it after its self-check."""
        self._cache, self._count_lock = Cache(max_bytes), threading.Lock()
        self._independent: dict[tuple[str, str], bool] = {}
        self._options: dict[str, dict[str, Any]] = {}

    def groups(self, media: Sequence[Media], options: Mapping[str, Any]) -> list[Group]:
        """Split media of one modality into what is processed together: single media where these are independent."""
        if len(media) <= 1 or self._is_independent(media[0].modality, options):
            return [(m,) for m in media]
        return [tuple(media)]

    def get(self, group: Group, options: Mapping[str, Any]) -> ProcessedMedia:
        """The processed `group`; raises DataError for a medium that cannot be used."""
        key = (repr(sorted(options.items())), group[0].modality, tuple(m.hash for m in group))
        return self._cache.get(key, lambda: self._process(group, options), lambda processed: processed.nbytes)

    def prefetch(self, media: Sequence[Media]) -> None:
        """Process media that are needed soon; safe on other threads.

        Skips a modality that has not been used yet, whose options are still unknown.
        """
        for modality, options in list(self._options.items()):
            for group in self.groups([m for m in media if m.modality == modality], options):
                self.get(group, options)

    def set_options(self, modality: str, options: dict[str, Any]) -> None:
        """Remember the options that the processor passes to the sub-processor of a modality, for `prefetch`."""
        self._options[modality] = options

    def count(self, num_media: int) -> None:
        with self._count_lock:
            self.num_processed += num_media

    def _process(self, group: Group, options: Mapping[str, Any]) -> ProcessedMedia:
        processor = self.processors[group[0].modality]
        features = processor.run([processor.open(m) for m in group], dict(options))
        self.count(len(group))
        return ProcessedMedia(features, digest(features))

    def _is_independent(self, modality: str, options: Mapping[str, Any]) -> bool:
        """Whether media of a modality can be processed one by one: tried once for each set of options."""
        name = (modality, repr(sorted(options.items())))
        if name not in self._independent:
            self._independent[name] = self._probe_independence(self.processors[modality], dict(options))
        return self._independent[name]

    def _probe_independence(self, processor: MediaProcessor, options: dict[str, Any]) -> bool:
        """Whether the outputs for two different media, concatenated, equal the output for both."""
        probes = processor.probes()
        try:
            joint = processor.run(probes, options)
            single = merge_outputs([processor.run([probe], options) for probe in probes])
        except (
            TypeError,
            ValueError,
            RuntimeError,
            IndexError,
        ):  # takes one medium only, or outputs do not concatenate
            return False
        return joint.keys() == single.keys() and digest(joint) == digest(single)


class ProcessorStub:
    """Takes the place of a sub-processor in one call of a processor, whose media are known, and serves them cached."""

    def __init__(self, cache: ProcessedMediaCache, modality: str, media: Sequence[Media]) -> None:
        self.cache, self.processor, self.media = cache, cache.processors[modality], media
        self.options: dict[str, Any] | None = None
        """The options of its call; None while the processor has not called it."""

    def __getattr__(self, name: str) -> Any:
        # Processors read settings of their sub-processors (patch sizes, sampling rates).
        return getattr(self.processor.subprocessor, name)

    def __call__(self, _: Any, **kwargs: Any) -> BatchFeature:
        # The media as decoded for this call are ignored: they come from the cache, or are opened there.
        self.options = {k: v for k, v in kwargs.items() if k not in DESCRIPTIONS}
        self.cache.set_options(self.processor.modality, self.options)
        output = merge_outputs([self.cache.get(group, self.options).features for group in self._groups()])
        for inner, outer in self.processor.renamed:
            if outer in output:  # the processor expects the sub-processor's names, and renames them itself
                output[inner] = output.pop(outer)
        return BatchFeature(output)

    def names(self) -> set[str]:
        """Names of its outputs; empty where the processor did not call it."""
        groups = self._groups() if self.options is not None else []
        return set(self.cache.get(groups[0], self.options or {}).features) if groups else set()

    def media_inputs(self, names: Sequence[str]) -> tuple[MediaInput, ...]:
        """Its media with the tensors of these names."""
        return tuple(self._media_input(group, self.options or {}, tuple(names)) for group in self._groups())

    def _groups(self) -> list[Group]:
        return self.cache.groups(self.media, self.options or {})

    def _media_input(self, group: Group, options: dict[str, Any], names: tuple[str, ...]) -> MediaInput:
        cache = self.cache  # `load` lives as long as the prompt, and must not keep the stub through `self`

        def load() -> dict[str, Tensor]:
            features = cache.get(group, options).features
            return {name: torch.as_tensor(features[name]) for name in names}

        return MediaInput(cache.get(group, options).key, load, len(group), modality=self.processor.modality)


def media_inputs(stubs: Sequence[ProcessorStub], tensors: Mapping[str, Tensor]) -> tuple[MediaInput, ...]:
    """A prompt's media one by one, with their part of `tensors`, the media inputs that the processor returned.

    All in one where the sub-processors do not account for every tensor: a processor with code of its own for media.
    """
    for stub in stubs:
        if stub.options is None:
            stub.cache.count(len(stub.media))
    names = [stub.names() for stub in stubs]
    if tensors and tensors.keys() <= set().union(*names):
        selected = [[name for name in tensors if name in outputs] for outputs in names]
        return tuple(m for stub, chosen in zip(stubs, selected, strict=True) for m in stub.media_inputs(chosen))
    modalities = {stub.processor.modality for stub in stubs}
    num_media, nbytes = sum(len(stub.media) for stub in stubs), sum(t.nbytes for t in tensors.values())
    modality = modalities.pop() if len(modalities) == 1 else ""
    return (MediaInput(digest(tensors), lambda: tensors, num_media, nbytes, modality),)


def merge_outputs(outputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One output of several: tensors and lists concatenated. Raises ValueError where shapes or values do not fit."""
    if len(outputs) == 1:
        return dict(outputs[0])
    merged: dict[str, Any] = {}
    for name, first in outputs[0].items():
        values = [output[name] for output in outputs]
        if isinstance(first, Tensor):
            if len({v.shape[1:] for v in values}) != 1:
                raise ValueError(f"{name}: shapes that cannot be concatenated")
            merged[name] = torch.cat(values)
        elif isinstance(first, list):
            merged[name] = [item for value in values for item in value]
        elif any(value != first for value in values):
            raise ValueError(f"{name}: {type(first).__name__} with several values")
        else:
            merged[name] = first
    return merged


def digest(features: Mapping[str, Any]) -> str:
    """SHA-256 of names, shapes, dtypes and values."""
    sha = hashlib.sha256()
    for name in sorted(features):
        value = features[name]
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            sha.update(f"{name} {tuple(plain.shape)} {plain.dtype}".encode())
            sha.update(plain.flatten().view(torch.uint8).numpy().data)
        else:
            sha.update(f"{name} {value!r}".encode())
    return sha.hexdigest()
