"""The back ends that decode video frames: decord, torchcodec, PyAV. Which one, `data.video_backend` says.

Frames are counted, and their times read, from the container alone (`streams.py`), once for all back ends. A back end
only turns numbers of frames into pixels; one whose own times disagree by half a frame has counted otherwise, and is
not believed.
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


class Unable(Exception):
    """Why a back end does not read this file, or no file: not installed, a codec it lacks, other frames."""


@dataclass(frozen=True)
class Wanted:
    """Frames of a file."""

    indices: Sequence[int]
    times: Float64[np.ndarray, " all"]
    """Seconds of every frame of the file, from the container."""
    shape: tuple[int, int]
    """Height and width of an upright frame."""
    turned: bool = False
    """Whether the file asks for its frames to be turned."""

    def checked(self, frames: np.ndarray, times: np.ndarray) -> Frames:
        """`frames`, if each is shown at the time that the container says, within half a frame."""
        near = np.diff(self.times, prepend=-np.inf, append=np.inf)
        gap = np.minimum(near[:-1], near[1:])[list(self.indices)] / 2
        off = np.abs(times - self.times[list(self.indices)])
        if frames.shape != (len(self.indices), *self.shape, 3) or not (off <= np.maximum(gap, 1e-3)).all():
            raise Unable(f"it gives frames {list(frames.shape)} that are up to {off.max():.3f} s from their times")
        return np.ascontiguousarray(frames, np.uint8)


def decode(file: BinaryIO, wanted: Wanted, pyav: Callable[[], Frames]) -> Frames:
    """The wanted frames by the back end in force; "auto" takes the first that can, and `pyav` where none else does.

    Raises DataError where the back end that was asked for by name cannot.
    """
    name = limits.video_backend()
    reasons = []
    for tried in ("decord", "torchcodec") if name == "auto" else (name,) if name in READERS else ():
        try:
            file.seek(0)
            return READERS[tried](file, wanted)
        except Unable as reason:
            reasons.append(str(reason))
    if name in READERS:
        raise DataError(
            f"Wanted {len(wanted.indices)} frames by {name}, found that it cannot: {reasons[0]}. "
            "Say data.video_backend=auto."
        )
    return pyav()


def _decord(file: BinaryIO, wanted: Wanted) -> Frames:
    if wanted.turned:
        raise Unable("decord 0.6 does not turn the frames of a file that asks for it")
    # A frame that never comes is waited for that many rounds, which at decord's own number takes minutes.
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "64")
    try:
        import decord  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError) as error:
        raise Unable(f"decord is not installed or does not load ({error})") from error
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(file, ctx=decord.cpu(0), num_threads=1)
        if len(reader) != len(wanted.times):
            raise Unable(f"decord counts {len(reader)} frames, the container {len(wanted.times)}")
        frames = reader.get_batch(list(wanted.indices)).asnumpy()
        times = np.asarray(reader.get_frame_timestamp(list(wanted.indices)), np.float64)[:, 0]
    except (decord.DECORDError, RuntimeError, IndexError, ValueError) as error:
        raise Unable(f"decord: {_first_line(error)}") from error
    return wanted.checked(frames, times)


def _torchcodec(file: BinaryIO, wanted: Wanted) -> Frames:
    try:
        from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError, RuntimeError) as error:
        raise Unable(f"torchcodec is not installed or does not load ({_first_line(error)})") from error
    try:
        reader: Any = VideoDecoder(file, dimension_order="NHWC", num_ffmpeg_threads=1)
        if len(reader) != len(wanted.times):
            raise Unable(f"torchcodec counts {len(reader)} frames, the container {len(wanted.times)}")
        first = float(reader.metadata.begin_stream_seconds_from_content or 0.0)
        batch = reader.get_frames_at(indices=list(wanted.indices))
        frames, times = batch.data.numpy(), batch.pts_seconds.numpy() - first
    except (RuntimeError, IndexError, ValueError) as error:
        raise Unable(f"torchcodec: {_first_line(error)}") from error
    return wanted.checked(frames, times)


READERS: dict[str, Callable[[BinaryIO, Wanted], Frames]] = {"decord": _decord, "torchcodec": _torchcodec}
"""Besides PyAV, which is always there."""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
