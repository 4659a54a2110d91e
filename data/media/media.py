"""Lazy references to media, and the only module that opens images, video and audio.

`media(value, modality)` makes a `Media` from any form of reference in a row; nothing is read before it is needed.
Decoded values are cached by content hash, so that an image in several replies or rows is decoded once.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
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
from PIL import Image, ImageOps, UnidentifiedImageError

from mmpost.data.media import encode, limits, preview
from mmpost.data.media.audio_video import Audio, Video, audio_header, open_audio, open_video, video_header
from mmpost.data.media.cache import Cache
from mmpost.data.media.frame_sampling import sample_frames
from mmpost.data.media.limits import DEFAULT, Limits
from mmpost.data.media.locate import locate
from mmpost.data.media.modalities import Modality, modality as find_modality, register_modality
from mmpost.errors import DataError

__all__ = ["Audio", "Media", "Video", "cache", "media", "sample_frames"]

T = TypeVar("T")
Blob = bytes

cache = Cache(limit=512 * 2**20)
"""Decoded media by content hash and options; `cache.limit` is in bytes."""

_BROKEN = (FFmpegError, OSError, EOFError, ValueError, SyntaxError, struct.error, zlib.error)
"""What decoders raise for missing, truncated or otherwise unreadable files."""


@dataclass(frozen=True, eq=False, repr=False)
class Media:
    """A lazy reference to a medium, compared and hashed by modality and content. Create it with `media(...)`."""

    modality: str
    source: Path | Blob
    """A file path, or the content of a file."""
    name: str
    """Name for messages: the path, or a short description of the bytes."""
    limits: Limits = DEFAULT
    """Size limits; a larger medium raises DataError before it is decoded."""
    options: tuple[tuple[str, Any], ...] = ()
    """Default options of `open`; part of the hash."""
    blanked: bool = False
    """Whether `open` returns an uninformative medium of the same size."""

    def open(self, **options: Any) -> Any:
        """Decode the medium: a PIL image (RGB, upright), `Video`, `Audio`, or the type of another registered modality.

        `options` are those of the modality: for video `fps`, `min_frames`, `max_frames` and `factor` as in
        `sample_frames`, or the indices `frames`; for audio `rate` in Hz and `channel`, "mean" (default) or "first". The
        caller may modify the value: it is a copy of the cached one. Raises DataError, naming the file, for unreadable
        media.
        """
        modality = find_modality(self.modality)
        merged = {**dict(self.options), **options}
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in merged.items() if v is not None}
        # The opener is part of the key: a modality that is registered again must not return values of the old one.
        key = (modality.open, self.hash, self.limits, tuple(sorted(options.items())))

        def decode(file: BinaryIO) -> Any:
            value = modality.open(file, **options)
            return modality.blank(value) if self.blanked and modality.blank else value

        return copy(cache.get(key, lambda: self._use(decode), modality.size))

    def header(self) -> dict[str, float]:
        """Sizes without decoding.

        Images: width, height (upright); video: also frames, fps, duration (s); audio: rate (Hz), duration (s).
        """
        return dict(self._header)

    @cached_property
    def hash(self) -> str:
        """Hexadecimal SHA-256 of the content, combined with the options and `blanked` if set."""
        if isinstance(self.source, Path):
            content = self._use(lambda _: _file_hash(self.source, *self._stamp()))
        else:
            content = hashlib.sha256(self.source).hexdigest()
        suffix = f" {self.options}" * bool(self.options) + " blanked" * self.blanked
        return hashlib.sha256(f"{content}{suffix}".encode()).hexdigest() if suffix else content

    def bytes(self) -> Blob:
        """The content of the file; for a blanked medium, the encoded blank."""
        return find_modality(self.modality).encode(self.open()) if self.blanked else self._use(lambda file: file.read())

    def preview(self) -> Blob:
        """A small PNG for reports."""
        modality = find_modality(self.modality)
        return (modality.preview or preview.array)(self.open(**(modality.preview_options or {})))

    def sketch(self) -> str:
        """One line of text for terminals; empty if the modality defines none."""
        modality = find_modality(self.modality)
        return "" if modality.sketch is None else modality.sketch(self.open(**(modality.preview_options or {})))

    def blank(self) -> Media | None:
        """An uninformative medium of the same size; None if the modality defines none."""
        if find_modality(self.modality).blank is None:
            return None
        return replace(self, blanked=True, name=f"{self.name}, blanked")

    def describe(self) -> str:
        """One line: modality, sizes and name."""
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
        status = os.stat(self.source)
        return status.st_mtime_ns, status.st_size

    def _use(self, read: Callable[[BinaryIO], T]) -> T:
        """Call `read` on the open file; all errors that a broken file can cause become a DataError with its name."""
        try:
            if isinstance(self.source, Path) and not stat.S_ISREG(os.stat(self.source).st_mode):
                # A named pipe would wait forever for somebody to write, and a device never ends.
                raise DataError(
                    f"wanted a regular file of modality {self.modality}, found a folder, pipe or device; correct it"
                )
            with (
                limits.under(self.limits),
                open(self.source, "rb") if isinstance(self.source, Path) else io.BytesIO(self.source) as file,
            ):
                limits.size(len(self.source) if isinstance(self.source, bytes) else os.fstat(file.fileno()).st_size)
                return read(file)
        except FileNotFoundError as error:
            raise DataError(
                f"Wanted a file of modality {self.modality}, found nothing at {self.name[:300]}: "
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
    modality: str,
    root: str | Path | None = None,
    *,
    folder: str | Path | None = None,
    limits: Limits = DEFAULT,
    **options: Any,
) -> Media:
    """Create a lazy reference to a medium.

    `value` is a path, file:// or data URL, bytes, {"bytes", "path"}, or a value in memory (`encode.py`).
    Relative paths start from `root`, which no path may leave; without a root they start from `folder` or the working
    directory and may lead anywhere. Files are not opened yet; values in memory are encoded at once. `options` become
    the default options of `Media.open`. Raises DataError for unusable references.
    """
    if isinstance(value, Media):
        if value.modality != modality:
            raise DataError(f"Wanted a medium of modality {modality}, found {value!r} of modality {value.modality}.")
        return value
    encoder = find_modality(modality).encode
    located = locate(value, root, folder)
    if located is None:
        try:
            content = encoder(value)
        except (TypeError, ValueError, FFmpegError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"Wanted {modality} as a path, bytes, data URL or value in memory; "
                f"found {type(value).__name__}, which cannot be stored ({error})."
            ) from error
        located = content, f"<{modality} in memory, {len(content)} bytes>"
    return Media(modality, *located, limits, tuple(sorted(options.items())))


_ORIENTATION = 0x0112
_SWAPS_SIDES = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "TGA")
"""What images are opened as, whatever their names end in. Pillow knows more; some of them run other programs (EPS)."""


@lru_cache(maxsize=1)
def _image_formats() -> list[str]:
    """Those of IMAGE_FORMATS that the installed Pillow can read."""
    Image.init()
    return [name for name in IMAGE_FORMATS if name in Image.OPEN]


_max_pixels_lock = threading.Lock()


@contextmanager
def _image(file: BinaryIO) -> Iterator[Image.Image]:
    # PIL's limit is global to the process and must be lifted to open a larger image. This reads only the header here;
    # the limit of the medium applies before decoding.
    with _max_pixels_lock:
        previous, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            opened = Image.open(file, formats=_image_formats())
        except UnidentifiedImageError as error:
            raise DataError(
                f"wanted an image ({', '.join(_image_formats())} or DICOM), found a file that is none of these or is "
                "damaged: convert it, or drop the row"
            ) from error
        finally:
            Image.MAX_IMAGE_PIXELS = previous
    with opened:
        limits.frame(opened.width, opened.height)
        yield opened


def _open_image(file: BinaryIO) -> Image.Image:
    """Upright RGB: transparency becomes white, 16 bits are reduced to the upper 8, DICOM is windowed."""
    if (dicom := _dicom_module(file)) is not None:
        return dicom.image(file)
    with _image(file) as stored:
        image = ImageOps.exif_transpose(stored)
        if image.mode.startswith("I"):
            gray = np.asarray(image)
            if gray.min() < 0 or gray.max() > 0xFFFF:
                raise DataError("A grayscale image of 32 bits has no fixed range; store it with 8 or 16 bits.")
            image = Image.fromarray((gray >> 8).astype(np.uint8))
        if image.mode == "F":
            raise DataError("An image of real numbers has no fixed range; store it with 8 or 16 bits.")
        if image.has_transparency_data:
            transparent = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", transparent.size, "white"), transparent)
        return image.convert("RGB")


def _dicom_module(file: BinaryIO) -> Any:
    """The module that reads DICOM files if this is one, else None; imported on demand, since that is slow."""
    head = file.read(132)
    file.seek(0)
    return import_module("mmpost.data.media.dicom") if head[128:] == b"DICM" else None


def _image_header(file: BinaryIO) -> dict[str, float]:
    if (dicom := _dicom_module(file)) is not None:
        return dicom.header(file)
    with _image(file) as image:
        # PngImageFile.getexif decodes all pixels in case the EXIF chunk follows them, so use it only for such files.
        before_pixels = image.format == "PNG" and not _late_exif(file)
        exif = Image.Image.getexif(image) if before_pixels else image.getexif()
        width, height = image.size
        if exif.get(_ORIENTATION) in _SWAPS_SIDES:
            width, height = height, width
        return {"width": width, "height": height}


def _late_exif(file: BinaryIO) -> bool:
    """Whether a PNG has a chunk after its pixels that may hold an EXIF orientation."""
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


register_modality(
    Modality(
        "image",
        _open_image,
        _image_header,
        preview=preview.thumbnail,
        encode=encode.image,
        size=lambda image: 3 * image.width * image.height,
        blank=lambda image: Image.new("RGB", image.size, (128, 128, 128)),
    )
)
register_modality(
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
register_modality(
    Modality(
        "audio",
        open_audio,
        audio_header,
        preview=lambda sound: preview.curve(sound.wave),
        encode=encode.audio,
        blank=lambda sound: replace(sound, wave=np.zeros_like(sound.wave)),
    )
)
