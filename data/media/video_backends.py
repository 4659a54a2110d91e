"""Backends that decode video frames: decord, torchcodec and PyAV, selected by `data.video_backend`.

Frame counts and times come from the container (`audio_video.py`), once for all backends: a backend only maps frame
indices to pixels. If its own times differ by more than half a frame, its frames are numbered differently and are
rejected.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float64, UInt8

from mmpost.data.media import limits
from mmpost.errors import DataError

Frames = UInt8[np.ndarray, "frame height width 3"]


class BackendError(Exception):
    """A backend cannot decode the file: it is not installed, lacks the codec or returns other frames."""


@dataclass(frozen=True)
class FrameRequest:
    """The frames to decode from one file."""

    indices: Sequence[int]
    times: Float64[np.ndarray, " all"]
    """Time of every frame of the file in seconds, from the container."""
    shape: tuple[int, int]
    """Height and width of an upright frame."""
    rotated: bool = False
    """Whether the file has rotation metadata."""

    def checked(self, frames: np.ndarray, times: np.ndarray) -> Frames:
        """Return `frames` if `times` match those of the container within half a frame, else raise BackendError."""
        near = np.diff(self.times, prepend=-np.inf, append=np.inf)
        gap = np.minimum(near[:-1], near[1:])[list(self.indices)] / 2
        off = np.abs(times - self.times[list(self.indices)])
        if frames.shape != (len(self.indices), *self.shape, 3) or not (off <= np.maximum(gap, 1e-3)).all():
            raise BackendError(f"it returns frames {list(frames.shape)} that are off by up to {off.max():.3f} s")
        return np.ascontiguousarray(frames, np.uint8)


def decode(file: BinaryIO, request: FrameRequest, pyav: Callable[[], Frames]) -> Frames:
    """Decode the requested frames with the current backend; "auto" tries decord, torchcodec and then `pyav`.

    Raises DataError if a backend that was selected by name fails.
    """
    name = limits.video_backend()
    reasons = []
    for backend in ("decord", "torchcodec") if name == "auto" else (name,) if name in READERS else ():
        try:
            file.seek(0)
            return READERS[backend](file, request)
        except BackendError as reason:
            reasons.append(str(reason))
    if name in READERS:
        raise DataError(
            f"Wanted {len(request.indices)} frames by {name}, found that it cannot: {reasons[0]}. "
            "Set data.video_backend=auto."
        )
    return pyav()


def _decord(file: BinaryIO, request: FrameRequest) -> Frames:
    if request.rotated:
        raise BackendError("decord 0.6 does not rotate the frames of a file with rotation metadata")
    # Number of attempts to get a missing frame at the end of a file; decord's default waits for minutes.
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "64")
    try:
        import decord  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError) as error:
        raise BackendError(f"decord is not installed or does not load ({error})") from error
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(file, ctx=decord.cpu(0), num_threads=1)
        if len(reader) != len(request.times):
            raise BackendError(f"decord counts {len(reader)} frames, the container {len(request.times)}")
        frames = reader.get_batch(list(request.indices)).asnumpy()
        times = np.asarray(reader.get_frame_timestamp(list(request.indices)), np.float64)[:, 0]
    except (decord.DECORDError, RuntimeError, IndexError, ValueError) as error:
        raise BackendError(f"decord: {_first_line(error)}") from error
    return request.checked(frames, times)


def _torchcodec(file: BinaryIO, request: FrameRequest) -> Frames:
    try:
        from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendError(f"torchcodec is not installed or does not load ({_first_line(error)})") from error
    try:
        reader: Any = VideoDecoder(file, dimension_order="NHWC", num_ffmpeg_threads=1)
        if len(reader) != len(request.times):
            raise BackendError(f"torchcodec counts {len(reader)} frames, the container {len(request.times)}")
        first = float(reader.metadata.begin_stream_seconds_from_content or 0.0)
        batch = reader.get_frames_at(indices=list(request.indices))
        frames, times = batch.data.numpy(), batch.pts_seconds.numpy() - first
    except (RuntimeError, IndexError, ValueError) as error:
        raise BackendError(f"torchcodec: {_first_line(error)}") from error
    return request.checked(frames, times)


READERS: dict[str, Callable[[BinaryIO, FrameRequest], Frames]] = {"decord": _decord, "torchcodec": _torchcodec}
"""Optional backends by name; PyAV is always available."""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
