"""Lazy references to media, and the only module that opens images, video and audio.

`media(value, kind)` makes a `Media` from whatever a row may hold; nothing is read until it is asked for. Decoded values
are kept by content hash in `cache`, so a picture that serves several replies or rows is decoded once.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from av.error import FFmpegError
from PIL import Image, ImageOps

from mmpost.data.media import encode, limits, preview
from mmpost.data.media.audio_video import Audio, Video, audio_header, open_audio, open_video, video_header
from mmpost.data.media.cache import Cache
from mmpost.data.media.frame_sampling import sample_frames
from mmpost.data.media.limits import DEFAULT, Limits
from mmpost.data.media.locate import locate
from mmpost.data.media.modalities import Modality, modality as find_modality, register
from mmpost.errors import DataError

__all__ = ["Audio", "Media", "Video", "cache", "media", "sample_frames"]

T = TypeVar("T")
Blob = bytes

cache = Cache(limit=512 * 2**20)
"""Decoded media by content and options; `cache.limit` is in bytes."""

_BROKEN = (FFmpegError, OSError, EOFError, ValueError, SyntaxError, struct.error, zlib.error)
"""What decoders raise for files that are missing, cut short or not what they should be."""


@dataclass(frozen=True, eq=False, repr=False)
class Media:
    """A medium that has not been read yet. Equal, and hashed, by kind and content. Make one with `media(...)`."""

    modality: str
    source: Path | Blob
    """A file, or the content of one."""
    name: str
    """What messages call it: its path, or a few words on the bytes."""
    limits: Limits = DEFAULT
    """How large it may be; larger raises before it is decoded."""
    options: tuple[tuple[str, Any], ...] = ()
    """Options with which it is opened, unless it is asked for with others; a part of its hash."""
    blanked: bool = False
    """Opened, it is one of the same sizes that says nothing."""

    def open(self, **options: Any) -> Any:
        """The decoded medium: a PIL image (RGB, upright), `Video`, `Audio`, or what a registered kind makes of it.

        Options are those of the kind (of a video `fps`, `min_frames`, `max_frames`, `factor` as in `sample_frames`, or
        `frames`; of audio `rate`, and `channel`: "mean" of all, the default, or "first"). The caller may change what
        it gets: the cache keeps its own copy. Raises DataError, naming the file, for what cannot be read.
        """
        kind = find_modality(self.modality)
        asked = {**dict(self.options), **options}
        chosen = {k: tuple(v) if isinstance(v, list) else v for k, v in asked.items() if v is not None}
        key = (kind.open, self.hash, self.limits, tuple(sorted(chosen.items())))
        blank = kind.blank if self.blanked else None
        shown = kind.open if blank is None else lambda file, **asked: blank(kind.open(file, **asked))
        return copy(cache.get(key, lambda: self._use(lambda file: shown(file, **chosen)), kind.size))

    def header(self) -> dict[str, float]:
        """Sizes without decoding: width, height (upright); frames, fps, duration (s); rate (Hz), duration (s)."""
        return dict(self._header)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the content, in hexadecimal; with options of its own, of both."""
        if isinstance(self.source, Path):
            content = self._use(lambda _: _file_hash(self.source, *self._stamp()))
        else:
            content = hashlib.sha256(self.source).hexdigest()
        own = f" {self.options}" * bool(self.options) + " blanked" * self.blanked
        return hashlib.sha256(f"{content}{own}".encode()).hexdigest() if own else content

    def bytes(self) -> Blob:
        """The content as it is on disk; of a blanked one, as it would be."""
        return find_modality(self.modality).encode(self.open()) if self.blanked else self._use(lambda file: file.read())

    def preview(self) -> Blob:
        """A small PNG for reports."""
        kind = find_modality(self.modality)
        return (kind.preview or preview.array)(self.open(**(kind.preview_options or {})))

    def sketch(self) -> str:
        """One line that shows it in a terminal; empty for a kind that has none."""
        kind = find_modality(self.modality)
        return "" if kind.sketch is None else kind.sketch(self.open(**(kind.preview_options or {})))

    def blank(self) -> Media | None:
        """A medium of the same sizes that says nothing; None for a kind that has no such thing."""
        return (
            None
            if find_modality(self.modality).blank is None
            else replace(self, blanked=True, name=f"{self.name}, blanked")
        )

    def describe(self) -> str:
        """One line: kind, sizes, name."""
        sizes = " ".join(f"{name}={value:g}" for name, value in self._header.items())
        return f"{self.modality} {sizes} {self.name}"

    def __repr__(self) -> str:
        return f"Media({self.modality} {self.name})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Media):
            return NotImplemented
        same = (self.source, self.options, self.blanked) == (other.source, other.options, other.blanked)
        return self.modality == other.modality and (same or self.hash == other.hash)

    def __hash__(self) -> int:
        return hash((self.modality, self.hash))

    @cached_property
    def _header(self) -> Mapping[str, float]:
        read = find_modality(self.modality).header
        if isinstance(self.source, Path):
            return self._use(lambda _: _file_header(read, self.limits, self.source, *self._stamp()))
        return self._use(read)

    def _stamp(self) -> tuple[int, int]:
        stat = os.stat(self.source)
        return stat.st_mtime_ns, stat.st_size

    def _use(self, read: Callable[[BinaryIO], T]) -> T:
        """Call `read` with the open file; every failure that the file can cause becomes a DataError that names it."""
        try:
            with (
                limits.under(self.limits),
                open(self.source, "rb") if isinstance(self.source, Path) else io.BytesIO(self.source) as file,
            ):
                limits.size(len(self.source) if isinstance(self.source, bytes) else os.fstat(file.fileno()).st_size)
                return read(file)
        except FileNotFoundError as error:
            raise DataError(
                f"Wanted a file of kind {self.modality}, found nothing at {self.name[:300]}: "
                "correct the path, or set data.root to the folder that relative paths start from."
            ) from error
        except DataError as error:
            raise DataError(f"{self.name[:300]}: {error}") from error
        except _BROKEN as error:
            raise DataError(
                f"{self.name[:300]}: wanted a readable {self.modality}, found a file that cannot be decoded "
                f"({type(error).__name__}: {error}). Replace the file or drop the row."
            ) from error


@lru_cache(maxsize=2**16)
def _file_hash(path: Path, _mtime: int, _size: int) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
        return digest.hexdigest()


@lru_cache(maxsize=2**14)
def _file_header(
    read: Callable[[BinaryIO], Mapping[str, float]], _limits: Limits, path: Path, _mtime: int, _size: int
) -> Mapping[str, float]:
    with path.open("rb") as file:
        return read(file)


def media(
    value: Any,
    kind: str,
    root: str | Path | None = None,
    *,
    folder: str | Path | None = None,
    limits: Limits = DEFAULT,
    **options: Any,
) -> Media:
    """Refer to a medium: a path, file:// or data URL, bytes, {"bytes", "path"}, or a value in memory (see `encode.py`).

    Relative paths start from `root`, which no path may leave; without a root they start from `folder`, else from the
    working directory, and may go anywhere. Files are not opened yet; values in memory are encoded at once. `options`
    are those with which the medium will be opened (`Media.open`).
    """
    if isinstance(value, Media):
        if value.modality != kind:
            raise DataError(f"Wanted a medium of kind {kind}, found {value!r} of kind {value.modality}.")
        return value
    wanted = find_modality(kind)
    found = locate(value, root, folder)
    if found is None:
        try:
            content = wanted.encode(value)
        except (TypeError, ValueError, FFmpegError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"Wanted {kind} as a path, bytes, data URL or value in memory; "
                f"found {type(value).__name__}, which cannot be stored ({error})."
            ) from error
        found = content, f"<{kind} in memory, {len(content)} bytes>"
    return Media(kind, *found, limits, tuple(sorted(options.items())))


_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
"""EXIF orientations whose width and height are swapped."""


_opening = threading.Lock()


@contextmanager
def _image(file: BinaryIO) -> Iterator[Image.Image]:
    # PIL has one limit for the whole process, and no other way to open a larger image than to lift it; which only reads
    # the header here. Decoding comes after the medium's own limit.
    with _opening:
        theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            opened = Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = theirs
    with opened:
        limits.frame(opened.width, opened.height)
        yield opened


def _open_image(file: BinaryIO) -> Image.Image:
    """Upright RGB; transparent pixels become white, 16 bits keep their upper 8, DICOM films are windowed."""
    if (films := _dicom_reader(file)) is not None:
        return films.picture(file)
    with _image(file) as stored:
        found = ImageOps.exif_transpose(stored)
        if found.mode.startswith("I"):
            grey = np.asarray(found)
            if grey.min() < 0 or grey.max() > 0xFFFF:
                raise DataError("A grey image of 32 bits has no fixed range; store it with 8 or 16 bits.")
            found = Image.fromarray((grey >> 8).astype(np.uint8))
        if found.mode == "F":
            raise DataError("An image of real numbers has no fixed range; store it with 8 or 16 bits.")
        if found.has_transparency_data:
            clear = found.convert("RGBA")
            found = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
        return found.convert("RGB")


def _dicom_reader(file: BinaryIO) -> Any:
    """The module that reads DICOM, if the file is such: by its preamble, because its import is not free."""
    head = file.read(132)
    file.seek(0)
    return import_module("mmpost.data.media.dicom") if head[128:] == b"DICM" else None


def _image_header(file: BinaryIO) -> dict[str, float]:
    if (films := _dicom_reader(file)) is not None:
        return films.header(file)
    with _image(file) as found:
        # PngImageFile.getexif decodes all pixels, in case the chunk comes late.
        early = found.format == "PNG" and not _late_exif(file)
        exif = Image.Image.getexif(found) if early else found.getexif()
        width, height = found.size
        if exif.get(_ORIENTATION) in _TURNED:
            width, height = height, width
        return {"width": width, "height": height}


def _late_exif(file: BinaryIO) -> bool:
    """Whether a PNG has a chunk after its pixels that may hold an orientation."""
    place = file.tell()
    file.seek(8)
    pixels = late = False
    while not late and len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        late = pixels and name in (b"eXIf", b"iTXt", b"zTXt", b"tEXt")
        pixels |= name == b"IDAT"
        file.seek(length + 4, os.SEEK_CUR)
    file.seek(place)
    return late


register(
    Modality(
        "image",
        _open_image,
        _image_header,
        preview=preview.picture,
        encode=encode.image,
        size=lambda image: 3 * image.width * image.height,
        blank=lambda image: Image.new("RGB", image.size, (128, 128, 128)),
    )
)
register(
    Modality(
        "video",
        open_video,
        video_header,
        preview=lambda video: preview.strip(video.frames),
        encode=encode.video,
        preview_options={"max_frames": 4},
        blank=lambda video: replace(video, frames=np.zeros_like(video.frames)),
    )
)
register(
    Modality(
        "audio",
        open_audio,
        audio_header,
        preview=lambda sound: preview.curve(sound.wave),
        encode=encode.audio,
        blank=lambda sound: replace(sound, wave=np.zeros_like(sound.wave)),
    )
)
