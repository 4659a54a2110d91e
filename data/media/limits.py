"""How large a medium may be, and what decodes it: from the `data` section of the run that reads it.

Limits travel with each medium. While it is read, its limits are those of the context: a kind asks them (`frame`,
`total`) with the sizes of the header, before it decodes. They are not global, so that two runs in one process, or a
thread, can differ.
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
    """Of its file."""
    frame: int = _SETTINGS.max_frame_pixels
    """Pixels of a picture, or of one frame."""
    total: int = _SETTINGS.max_media_pixels
    """Pixels of all frames that are decoded, or samples of sound."""
    video_backend: str = _SETTINGS.video_backend
    """What decodes the frames of a video."""

    @staticmethod
    def of(data: DataSettings) -> Limits:
        """Those of a run's `data` section."""
        return Limits(data.max_bytes, data.max_frame_pixels, data.max_media_pixels, data.video_backend)


DEFAULT = Limits()
_now: ContextVar[Limits] = ContextVar("limits", default=DEFAULT)


@contextmanager
def under(limits: Limits) -> Iterator[None]:
    """What is read in the body is read under these limits."""
    token = _now.set(limits)
    try:
        yield
    finally:
        _now.reset(token)


def size(count: int) -> None:
    """Raise DataError if a file of `count` bytes is too large."""
    limit = _now.get().bytes
    if count > limit:
        raise DataError(
            f"Wanted a file of at most {limit:,} bytes, found {count:,}. Shrink it, or raise data.max_bytes."
        )


def frame(width: float, height: float) -> None:
    """Raise DataError if a picture or frame of this size is too large to be decoded."""
    limit, found = _now.get().frame, int(width) * int(height)
    if found > limit:
        raise DataError(
            f"Wanted a picture of at most {limit:,} pixels, found {width:.0f} x {height:.0f}, which is {found:,}. "
            "Shrink it, or raise data.max_frame_pixels."
        )


def total(count: int, found: str, fewer: str) -> None:
    """Raise DataError if a medium of `found` is decoded to too much; `fewer` says how to ask for less."""
    limit = _now.get().total
    if count > limit:
        raise DataError(
            f"Wanted at most {limit:,} pixels or samples of sound in one medium, found {found}, which is {count:,}. "
            f"{fewer}, or raise data.max_media_pixels."
        )


def video_backend() -> str:
    """The back end that decodes videos here: "auto", or one of `decoders.py`."""
    return _now.get().video_backend
