"""Limits on the size of media, and the choice of the video backend, from the `data` section of a run.

Each medium carries its limits. While it is read, they are those of the current context: modalities call `frame` and
`total` with the sizes from the header, before they decode. They are a context variable rather than a global, so that
two runs in one process, or two threads, can have different limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from mmpost.config.settings import DataSettings
from mmpost.errors import DataError

_SETTINGS = DataSettings()


@dataclass(frozen=True)
class Limits:
    """The limits of one medium."""

    bytes: int = _SETTINGS.max_bytes
    """Maximum size of the file in bytes."""
    frame: int = _SETTINGS.max_frame_pixels
    """Maximum pixels of an image or of one video frame."""
    total: int = _SETTINGS.max_media_pixels
    """Maximum pixels of all decoded frames together, or samples of audio."""
    video_backend: str = _SETTINGS.video_backend
    """Name of the video backend, or "auto" (`video_backends.py`)."""

    @staticmethod
    def of(data: DataSettings) -> Limits:
        """The limits in the `data` section of a run."""
        return Limits(data.max_bytes, data.max_frame_pixels, data.max_media_pixels, data.video_backend)


DEFAULT = Limits()
_current: ContextVar[Limits] = ContextVar("limits", default=DEFAULT)


@contextmanager
def under(limits: Limits) -> Iterator[None]:
    """Apply `limits` to everything that is read in the body."""
    token = _current.set(limits)
    try:
        yield
    finally:
        _current.reset(token)


def size(count: int) -> None:
    """Raise DataError if a file of `count` bytes exceeds the limit."""
    limit = _current.get().bytes
    if count > limit:
        raise DataError(
            f"Wanted a file of at most {limit:,} bytes, found {count:,}. Shrink it, or raise data.max_bytes."
        )


def frame(width: float, height: float) -> None:
    """Raise DataError if an image or frame of this size exceeds the limit."""
    limit, pixels = _current.get().frame, int(width) * int(height)
    if pixels > limit:
        raise DataError(
            f"Wanted an image of at most {limit:,} pixels, found {width:.0f} x {height:.0f}, which is {pixels:,}. "
            "Shrink it, or raise data.max_frame_pixels."
        )


def total(count: int, content: str, remedy: str) -> None:
    """Raise DataError if decoding `count` pixels or samples exceeds the limit.

    The message describes the `content` and suggests a `remedy`.
    """
    limit = _current.get().total
    if count > limit:
        raise DataError(
            f"Wanted at most {limit:,} pixels or audio samples in one medium, found {content}, which is {count:,}. "
            f"{remedy}, or raise data.max_media_pixels."
        )


def video_backend() -> str:
    """The video backend of the current context: "auto", "pyav" or one of `video_backends.READERS`."""
    return _current.get().video_backend
