"""Video and audio via PyAV. Use `Media.open` instead of these functions: `media.py` registers them as modalities.

Another library may decode the frames of a video (`video_backends.py`); their number and times come from the container.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.stream import Stream
from jaxtyping import Float32, Float64, Int64, UInt8

from mmpost.data.media import limits, video_backends
from mmpost.data.media.frame_sampling import sample_frames
from mmpost.errors import DataError

CHANNELS = ("mean", "first")
"""How audio with several channels becomes mono."""


@dataclass(frozen=True, eq=False)
class Video:
    """Decoded frames with their presentation times."""

    frames: UInt8[np.ndarray, "frame height width 3"]
    times: Float64[np.ndarray, " frame"]
    """Seconds since the first frame of the file."""
    indices: Int64[np.ndarray, " frame"]
    """Indices of the frames in the file."""

    @property
    def nbytes(self) -> int:
        return self.frames.nbytes

    def __copy__(self) -> Video:
        return Video(self.frames.copy(), self.times.copy(), self.indices.copy())


@dataclass(frozen=True, eq=False)
class Audio:
    """A mono waveform, nominally within -1 to 1."""

    wave: Float32[np.ndarray, " sample"]
    rate: int
    """Sampling rate in Hz."""

    @property
    def nbytes(self) -> int:
        return self.wave.nbytes

    def __copy__(self) -> Audio:
        return Audio(self.wave.copy(), self.rate)


@contextmanager
def _container(file: BinaryIO, kind: str) -> Iterator[tuple[InputContainer, Any]]:
    """Open the file and its first stream of `kind`; playlists may not refer to other files or hosts."""
    file.seek(0)
    with av.open(file, options={"protocol_whitelist": "none"}) as container:
        streams = [s for s in container.streams if s.type == kind]
        if not streams:
            types = ", ".join(sorted({s.type for s in container.streams})) or "none"
            cut = "" if container.streams else " If it is cut short, copy it again."
            raise DataError(f"Wanted a {kind} stream, found {types} in a {container.format.name} file.{cut}")
        streams[0].thread_type = "AUTO"
        yield container, streams[0]


def _packets(container: InputContainer, stream: Stream, expected: str = "") -> list[tuple[int, int]]:
    """(time, duration) of each packet in display order, in units of the stream's time base, without decoding.

    `expected` describes the content for the message if a complete file has no packet. Raises DataError for such a file,
    and for one that is truncated.
    """
    packets: list[tuple[int, int]] = []
    end = 0.0
    for packet in container.demux():
        time = packet.dts if packet.pts is None else packet.pts
        if time is None or packet.time_base is None:
            continue
        end = max(end, float((time + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index == stream.index and not packet.is_discard:
            packets.append((time, packet.duration or 0))
    declared = (container.duration or 0) / 1e6
    # The container estimates the duration of these formats from the bit rate.
    estimated = container.format.name in ("mp3", "aac")
    if not packets and not declared:
        empty = f"a non-empty {stream.type} stream, found an empty one. Replace the file."
        raise DataError(f"Wanted {expected or empty}")
    if not packets or (not estimated and end < 0.9 * declared):
        raise DataError(f"The file is cut short: wanted {declared:.2f} s, found {end:.2f} s. Copy it again.")
    return sorted(packets)


class _Index(NamedTuple):
    """Properties of a video, from its container and one decoded frame."""

    header: dict[str, float]
    ticks: list[int]
    """Presentation time of each frame in units of `base`."""
    base: Fraction
    """The time base in seconds."""
    rotated: bool
    """Whether the file has rotation metadata."""


def _video_index(file: BinaryIO) -> _Index:
    with _container(file, "video") as (container, stream):
        ticks, base = [time for time, _ in _packets(container, stream)], stream.time_base
        span, declared = float((ticks[-1] - ticks[0]) * base), float(stream.average_rate or 0)
    measured = (len(ticks) - 1) / span if span else declared or 1.0
    fps = declared if abs(declared - measured) < 0.01 * measured else measured
    with _container(file, "video") as (container, stream):
        limits.frame(stream.width, stream.height)
        # PyAV reports the rotation only on decoded frames.
        first = next(container.decode(stream))
    width, height = (first.height, first.width) if first.rotation % 180 else (first.width, first.height)
    header = {"width": width, "height": height, "frames": len(ticks), "fps": fps, "duration": span + 1 / fps}
    return _Index(header, ticks, base, bool(first.rotation))


def video_header(file: BinaryIO) -> dict[str, float]:
    """Width and height (upright), number of frames, fps, and duration in seconds."""
    return _video_index(file).header


def open_video(
    file: BinaryIO,
    fps: float | None = None,
    max_frames: int | None = None,
    min_frames: int | None = None,
    factor: int = 1,
    frames: tuple[int, ...] | None = None,
) -> Video:
    """Decode upright frames: those at the indices `frames`, or else those that `sample_frames` selects by the options.

    Raises DataError for indices outside the file, and for more pixels than the limit.
    """
    header, ticks, base, rotated = _video_index(file)
    options = (fps, max_frames, min_frames, factor)
    indices = sorted(set(frames)) if frames is not None else sample_frames(header, *options)
    if not indices or not 0 <= indices[0] <= indices[-1] < len(ticks):
        raise DataError(f"Wanted frames {indices}, found frames 0 to {len(ticks) - 1}.")
    width, height = int(header["width"]), int(header["height"])
    content = f"{len(indices)} frames of {width} x {height}"
    limits.total(len(indices) * width * height, content, "Open it with fewer frames (fps, max_frames)")
    times = np.array([float((tick - ticks[0]) * base) for tick in ticks])
    request = video_backends.FrameRequest(indices, times, (height, width), rotated)
    decoded = video_backends.decode(file, request, lambda: _decode(file, ticks, [ticks[i] for i in indices]))
    return Video(decoded, times[indices], np.array(indices, np.int64))


def _decode(file: BinaryIO, times: list[int], targets: list[int]) -> np.ndarray:
    """Decode the frames at the times `targets`; the next frame, or else the last, replaces a dropped one."""
    frames: list[np.ndarray] = []
    dropped = 0
    with _container(file, "video") as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            now = times[min(number, len(times) - 1)] if frame.pts is None else frame.pts
            if now < targets[len(frames)]:
                continue
            pixels = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
            while len(frames) < len(targets) and targets[len(frames)] <= now:
                dropped += targets[len(frames)] < now
                frames.append(pixels)
            if len(frames) == len(targets):
                break
    dropped += len(targets) - len(frames)
    if not frames or dropped > 1 + len(targets) // 10:
        raise DataError(f"Wanted {len(targets)} frames, found {len(targets) - dropped} that can be decoded.")
    return np.stack(frames + [frames[-1]] * (len(targets) - len(frames)))


PLANES = 7
"""PyAV counts the planes of a frame up to a null pointer, which FFmpeg has after at most so many: with more planes it
reads memory that is not its own, and the process dies. 7.1 sound has eight."""


def audio_header(file: BinaryIO) -> dict[str, float]:
    """Sampling rate in Hz and duration in seconds."""
    with _container(file, "audio") as (container, stream):
        packets = _packets(container, stream, "audio, found an empty stream. Replace the file or drop the row.")
        ticks = max(time + duration for time, duration in packets) - packets[0][0]
        return {"rate": stream.rate, "duration": float(ticks * stream.time_base)}


def open_audio(file: BinaryIO, rate: int | None = None, channel: str = "mean") -> Audio:
    """Decode mono audio, resampled to `rate` Hz if given; `channel` "mean" averages all channels, "first" takes one.

    Raises DataError for an empty stream, for samples that are not finite, and for more samples than the limit.
    """
    if channel not in CHANNELS:
        raise DataError(f"Wanted a channel among {', '.join(CHANNELS)}; found {channel!r}. Correct the option.")
    header = audio_header(file)
    with _container(file, "audio") as (container, stream):
        samples = round(header["duration"] * stream.rate) * stream.channels
        limits.total(samples, f"{header['duration']:.0f} s of {stream.channels} channels", "Cut it")
        rate = int(rate or stream.rate)
        # Channels are averaged below: FFmpeg's downmix to mono is up to 1.4 times louder. Packed, because of PLANES.
        mixer = av.AudioResampler(format="flt", rate=rate)
        packed = [p for frame in container.decode(stream) for p in mixer.resample(_finite(frame))]
        packed += mixer.resample(None)
        chunks = [p.to_ndarray().reshape(-1, p.layout.nb_channels).T for p in packed]
    if not sum(chunk.shape[1] for chunk in chunks):
        raise DataError("Wanted audio, found no samples. Replace the file or drop the row.")
    channels = np.ascontiguousarray(np.concatenate(chunks, axis=1))
    wave = channels[0] if channel == "first" else channels.mean(0, dtype=np.float32)
    return Audio(wave, rate)


def _finite(frame: Any) -> Any:
    """Return the frame if its samples are finite, else raise DataError; checked here since resampling spreads a NaN."""
    if not frame.format.name.startswith(("flt", "dbl")):
        return frame
    readable = [frame]
    if frame.format.is_planar and frame.layout.nb_channels > PLANES:
        readable = av.AudioResampler(format=frame.format.packed.name).resample(frame)
    broken = ~np.isfinite(np.concatenate([f.to_ndarray() for f in readable], axis=1))
    if broken.any():
        raise DataError(
            f"Wanted finite samples, found {broken.sum():,} that are not, from {frame.time or 0.0:.2f} s on. "
            "Replace the file or drop the row."
        )
    return frame
