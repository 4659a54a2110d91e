"""decord, torchcodec and PyAV: the same frames at the same times, and the same refusals."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mmpost.data.media import video_backends
from mmpost.data.media.limits import Limits
from mmpost.data.media.media import Media, media
from mmpost.errors import DataError

BACKENDS = ("decord", "torchcodec", "pyav", "auto")
CHANGING = [0, 300, 400, 1200, 1800, 1900, 3300, 3340, 4300, 5300, 5800, 8300]
"""Milliseconds of frames without a rate."""


def by(backend: str, value: bytes | Path) -> Media:
    """The video as one back end reads it; skips where that is not installed."""
    if backend in video_backends.READERS:
        try:
            __import__(backend)
        except (ImportError, OSError, RuntimeError) as error:
            pytest.skip(f"{backend} is not installed or does not load: {str(error)[:80]}")
    return media(value, "video", limits=Limits(video_backend=backend))


def h264(times: list[int], format: str = "mp4", width: int = 64, gop: int = 5) -> bytes:
    """A bar that moves to the right, a step each frame, at `times` in milliseconds; B-frames and all."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "10", "threads": "1", "g": str(gop)})
        stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            picture = np.zeros((48, width, 3), np.uint8)
            picture[:, 4 * number : 4 * number + 8] = (200, 120, 40)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def bars(frames: np.ndarray) -> list[int]:
    """Which step of the bar each frame shows."""
    return [round((np.flatnonzero(f[..., 0].mean(0) > 100).mean() - 3.5) / 4) for f in frames]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("format", ["mp4", "matroska"])
@pytest.mark.parametrize("late", [0, 700])
def test_constant_rate_is_frame_k_at_k_over_fps(backend: str, format: str, late: int) -> None:
    video = by(backend, h264([late + 100 * k for k in range(12)], format))
    assert video.header()["fps"] == pytest.approx(10, rel=1e-3)
    opened = video.open()
    assert bars(opened.frames) == list(range(12))
    assert np.abs(opened.times - np.arange(12) / 10).max() < 0.05
    some = video.open(fps=4, factor=2)
    assert bars(some.frames) == some.indices.tolist() == [0, 4, 7, 11]
    assert some.times == pytest.approx(some.indices / 10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("format", ["mp4", "matroska"])
def test_without_a_rate_the_container_says_the_times(backend: str, format: str) -> None:
    opened = by(backend, h264(CHANGING, format)).open()
    assert bars(opened.frames) == list(range(12))
    assert opened.times == pytest.approx(np.array(CHANGING) / 1000, abs=1e-6)
    some = by(backend, h264(CHANGING, format)).open(frames=[9, 2, 6])
    assert bars(some.frames) == some.indices.tolist() == [2, 6, 9]
    assert some.times == pytest.approx([0.4, 3.3, 5.3], abs=1e-6)


@pytest.mark.parametrize("backend", BACKENDS[:2])
@pytest.mark.parametrize("times", [[100 * k for k in range(12)], CHANGING])
def test_all_back_ends_give_the_same_pixels(backend: str, times: list[int]) -> None:
    content = h264(times)
    plain, other = by("pyav", content).open(), by(backend, content).open()
    assert np.abs(plain.frames.astype(int) - other.frames).max() <= 2
    assert np.array_equal(plain.times, other.times)
    assert np.array_equal(plain.indices, other.indices)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_film(backend: str, real) -> None:
    path = real("video/flipping_a_pancake.mkv")[0]
    found = by(backend, path)
    opened = found.open(fps=2, min_frames=4, max_frames=768, factor=2)
    assert len(opened.times) == 20
    # 30 frames a second, stamped in whole milliseconds.
    assert np.abs(opened.times - opened.indices / 30).max() < 0.5 / 30
    plain = by("pyav", path).open(frames=opened.indices.tolist())
    assert np.array_equal(plain.times, opened.times)
    assert np.abs(plain.frames.astype(int) - opened.frames).mean() < 1
    # Neighbours differ by more than the back ends do, so a frame off by one would show.
    beside = by("pyav", path).open(frames=[min(int(i) + 1, 309) for i in opened.indices])
    assert (
        np.abs(beside.frames.astype(int) - opened.frames).mean()
        > 2 * np.abs(plain.frames.astype(int) - opened.frames).mean()
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_turned_square_is_upright(backend: str, turn: int) -> None:
    content = bytearray(h264([0, 100], width=48))
    matrix = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[turn]
    place = content.index(b"tkhd") + 44
    a, b, c, d = (v << 16 for v in matrix)
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    video = by(backend, bytes(content))
    if backend == "decord":
        with pytest.raises(DataError, match="does not rotate"):
            video.open()
        return
    frame = video.open().frames[0].mean(-1)
    sides = {"left": frame[:, :8], "top": frame[:8], "right": frame[:, -8:], "bottom": frame[-8:]}
    # The bar is at the left before it is turned clockwise.
    assert max(sides, key=lambda s: sides[s].mean()) == {90: "top", 180: "right", 270: "bottom"}[turn]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("format", "kept"), [("mp4", 0.3), ("mp4", 0.6), ("mp4", 0.9), ("matroska", 0.6)])
def test_a_file_cut_short_is_refused_by_name(backend: str, kept: float, format: str, tmp_path: Path) -> None:
    whole = h264([100 * k for k in range(16)], format)
    (tmp_path / "cut.vid").write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(DataError, match=r"cut\.vid.*(cut short|cannot be decoded)"):
        by(backend, tmp_path / "cut.vid").open()


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_no_video_is_refused_by_name(backend: str, tmp_path: Path) -> None:
    (tmp_path / "sound.wav").write_bytes(media((np.zeros(800, np.float32), 8000), "audio").bytes())
    with pytest.raises(DataError, match=r"sound\.wav.*Wanted a video stream, found audio"):
        by(backend, tmp_path / "sound.wav").open()
    (tmp_path / "none.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"none\.mp4.*cannot be decoded"):
        by(backend, tmp_path / "none.mp4").open()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("format", ["mp4", "matroska", "avi"])
def test_a_stream_without_frames_is_refused_by_name(backend: str, format: str, tmp_path: Path) -> None:
    file = tmp_path / "empty.vid"
    with av.open(str(file), "w", format=format) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        container.start_encoding()
    with pytest.raises(DataError, match=r"empty\.vid.*(an empty one|cut short|cannot be decoded|found none)"):
        by(backend, file).open()


@pytest.mark.parametrize("backend", BACKENDS)
def test_damaged_frames_are_refused_by_name(backend: str, tmp_path: Path) -> None:
    content = bytearray(h264([100 * k for k in range(16)], "mp4", gop=1))
    start = content.index(b"mdat") + 4
    middle = (content.index(b"moov") - start) // 3
    content[start + middle : start + 3 * middle] = b"\xff" * (2 * middle)
    (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.mp4"):
        by(backend, tmp_path / "bad.mp4").open()


def test_a_back_end_with_other_times_is_not_believed() -> None:
    wanted = video_backends.FrameRequest([1, 2], np.array([0.0, 0.1, 0.2, 1.0]), (2, 2))
    frames = np.zeros((2, 2, 2, 3), np.uint8)
    assert wanted.checked(frames, np.array([0.1, 0.249])).shape == frames.shape
    for bad, times in ((frames, [0.1, 0.3]), (frames[:1], [0.1]), (np.zeros((2, 2, 3, 3)), [0.1, 0.2])):
        with pytest.raises(video_backends.BackendError):
            wanted.checked(bad, np.array(times))


def test_auto_goes_on_to_the_next_and_a_named_back_end_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    content = h264([0, 100, 200])
    asked = []

    def unable(name: str):
        def read(file, wanted):
            asked.append(name)
            raise video_backends.BackendError(f"{name} is away")

        return read

    monkeypatch.setattr(video_backends, "READERS", {name: unable(name) for name in video_backends.READERS})
    assert bars(media(content, "video", limits=Limits(video_backend="auto")).open().frames) == [0, 1, 2]
    assert asked == ["decord", "torchcodec"]
    with pytest.raises(
        DataError, match=r"3 frames by decord, found that it cannot: decord is away.*video_backend=auto"
    ):
        media(content, "video", limits=Limits(video_backend="decord")).open()
    assert bars(media(content, "video", limits=Limits(video_backend="pyav")).open().frames) == [0, 1, 2]
    assert asked == ["decord", "torchcodec", "decord"]
