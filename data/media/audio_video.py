"""Video and audio through PyAV: `media.py` registers what is here, and everything else goes through `Media`.

The frames of a video may be decoded by another library (`decoders.py`); what they are and when, the container says.
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
"""What becomes of several channels of sound."""


@dataclass(frozen=True, eq=False)
class Video:
    """Frames with the time at which each is shown."""

    frames: UInt8[np.ndarray, "frame height width 3"]
    times: Float64[np.ndarray, " frame"]
    """Seconds from the first frame of the file."""
    indices: Int64[np.ndarray, " frame"]
    """Which frames of the file these are."""

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
    """Hz."""

    @property
    def nbytes(self) -> int:
        return self.wave.nbytes

    def __copy__(self) -> Audio:
        return Audio(self.wave.copy(), self.rate)


@contextmanager
def _container(file: BinaryIO, kind: str) -> Iterator[tuple[InputContainer, Any]]:
    """The open file and its first stream of `kind`; a play list may lead neither to other files nor to hosts."""
    file.seek(0)
    with av.open(file, options={"protocol_whitelist": "none"}) as container:
        streams = [s for s in container.streams if s.type == kind]
        if not streams:
            found = ", ".join(sorted({s.type for s in container.streams})) or "none"
            cut = "" if container.streams else " If it is cut short, copy it again."
            raise DataError(f"Wanted a {kind} stream, found {found} in a {container.format.name} file.{cut}")
        streams[0].thread_type = "AUTO"
        yield container, streams[0]


def _packets(container: InputContainer, stream: Stream, wanted: str = "") -> list[tuple[int, int]]:
    """(time, duration) of the packets of `stream` in display order, in its time base, by reading without decoding.

    `wanted` is what a file that is whole, but has no packet, is told that it should hold.
    """
    found: list[tuple[int, int]] = []
    end = 0.0
    for packet in container.demux():
        time = packet.dts if packet.pts is None else packet.pts
        if time is None or packet.time_base is None:
            continue
        end = max(end, float((time + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index == stream.index and not packet.is_discard:
            found.append((time, packet.duration or 0))
    declared = (container.duration or 0) / 1e6
    # Durations of these two are guessed from the bit rate.
    guessed = container.format.name in ("mp3", "aac")
    if not found and not declared:
        empty = f"a {stream.type} stream with something in it, found an empty one. Replace the file."
        raise DataError(f"Wanted {wanted or empty}")
    if not found or (not guessed and end < 0.9 * declared):
        raise DataError(f"The file is cut short: wanted {declared:.2f} s, found {end:.2f} s. Copy it again.")
    return sorted(found)


class _Index(NamedTuple):
    """What is known of a video without its frames but one."""

    header: dict[str, float]
    ticks: list[int]
    """The time of each frame in units of the time base."""
    base: Fraction
    """Seconds."""
    turned: bool
    """Whether the file asks for its frames to be turned."""


def _video_index(file: BinaryIO) -> _Index:
    with _container(file, "video") as (container, stream):
        ticks, base = [time for time, _ in _packets(container, stream)], stream.time_base
        span, declared = float((ticks[-1] - ticks[0]) * base), float(stream.average_rate or 0)
    measured = (len(ticks) - 1) / span if span else declared or 1.0
    fps = declared if abs(declared - measured) < 0.01 * measured else measured
    with _container(file, "video") as (container, stream):
        limits.frame(stream.width, stream.height)
        # The rotation is only told with a decoded frame.
        first = next(container.decode(stream))
    width, height = (first.height, first.width) if first.rotation % 180 else (first.width, first.height)
    header = {"width": width, "height": height, "frames": len(ticks), "fps": fps, "duration": span + 1 / fps}
    return _Index(header, ticks, base, bool(first.rotation))


def video_header(file: BinaryIO) -> dict[str, float]:
    return _video_index(file).header


def open_video(
    file: BinaryIO,
    fps: float | None = None,
    max_frames: int | None = None,
    min_frames: int | None = None,
    factor: int = 1,
    frames: tuple[int, ...] | None = None,
) -> Video:
    """All frames, those that `sample_frames` chooses, or the ones named; turned as the file asks."""
    header, ticks, base, turned = _video_index(file)
    options = (fps, max_frames, min_frames, factor)
    chosen = sorted(set(frames)) if frames is not None else sample_frames(header, *options)
    if not chosen or not 0 <= chosen[0] <= chosen[-1] < len(ticks):
        raise DataError(f"Wanted frames {chosen}, found frames 0 to {len(ticks) - 1}.")
    width, height = int(header["width"]), int(header["height"])
    found = f"{len(chosen)} frames of {width} x {height}"
    limits.total(len(chosen) * width * height, found, "Open it with fewer frames (fps, max_frames)")
    times = np.array([float((tick - ticks[0]) * base) for tick in ticks])
    wanted = video_backends.Wanted(chosen, times, (height, width), turned)
    decoded = video_backends.decode(file, wanted, lambda: _decode(file, ticks, [ticks[i] for i in chosen]))
    return Video(decoded, times[chosen], np.array(chosen, np.int64))


def _decode(file: BinaryIO, times: list[int], wanted: list[int]) -> np.ndarray:
    """The frames shown at `wanted`; for one that the decoder drops, the next that it gives, or else the last."""
    found: list[np.ndarray] = []
    dropped = 0
    with _container(file, "video") as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            now = times[min(number, len(times) - 1)] if frame.pts is None else frame.pts
            if now < wanted[len(found)]:
                continue
            pixels = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
            while len(found) < len(wanted) and wanted[len(found)] <= now:
                dropped += wanted[len(found)] < now
                found.append(pixels)
            if len(found) == len(wanted):
                break
    dropped += len(wanted) - len(found)
    if not found or dropped > 1 + len(wanted) // 10:
        raise DataError(f"Wanted {len(wanted)} frames, found {len(wanted) - dropped} that can be decoded.")
    return np.stack(found + [found[-1]] * (len(wanted) - len(found)))


def audio_header(file: BinaryIO) -> dict[str, float]:
    with _container(file, "audio") as (container, stream):
        packets = _packets(container, stream, "sound, found an empty stream. Replace the file or drop the row.")
        ticks = max(time + duration for time, duration in packets) - packets[0][0]
        return {"rate": stream.rate, "duration": float(ticks * stream.time_base)}


def open_audio(file: BinaryIO, rate: int | None = None, channel: str = "mean") -> Audio:
    """One channel at `rate` or the file's own: the mean of all, or with channel "first" the first alone.

    Raises DataError for a stream without a sample, and for samples that are not finite numbers.
    """
    if channel not in CHANNELS:
        raise DataError(f"Wanted a channel among {', '.join(CHANNELS)}; found {channel!r}. Correct the option.")
    header = audio_header(file)
    with _container(file, "audio") as (container, stream):
        samples = round(header["duration"] * stream.rate) * stream.channels
        limits.total(samples, f"{header['duration']:.0f} s of {stream.channels} channels", "Cut it")
        rate = int(rate or stream.rate)
        # Channels are averaged below: the library's own way to mono adds them up to 1.4 times as loud.
        mixer = av.AudioResampler(format="fltp", rate=rate)
        pieces = [p.to_ndarray() for frame in container.decode(stream) for p in mixer.resample(_finite(frame))]
        pieces += [piece.to_ndarray() for piece in mixer.resample(None)]
    if not sum(piece.shape[1] for piece in pieces):
        raise DataError("Wanted sound, found no sample. Replace the file or drop the row.")
    found = np.concatenate(pieces, axis=1)
    wave = found[0] if channel == "first" else found.mean(0, dtype=np.float32)
    return Audio(wave, rate)


def _finite(frame: Any) -> Any:
    """The frame, whose samples must be numbers; looked at here because a resampler spreads one that is none."""
    if not frame.format.name.startswith(("flt", "dbl")):
        return frame
    broken = ~np.isfinite(frame.to_ndarray())
    if broken.any():
        raise DataError(
            f"Wanted finite samples, found {broken.sum():,} that are not, from {frame.time or 0.0:.2f} s on. "
            "Replace the file or drop the row."
        )
    return frame
