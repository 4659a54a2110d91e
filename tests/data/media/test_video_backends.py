"""decord, torchcodec and PyAV: the same frames, timestamps and errors."""

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
VARIABLE_TIMES = [0, 300, 400, 1200, 1800, 1900, 3300, 3340, 4300, 5300, 5800, 8300]
"""Timestamps of frames at a variable rate, in milliseconds."""


def open_with(backend: str, value: bytes | Path) -> Media:
    """The video, decoded by `backend`; skips the test if that is not installed."""
    if backend in video_backends.READERS:
        try:
            __import__(backend)
        except (ImportError, OSError, RuntimeError) as error:
            pytest.skip(f"{backend} is not installed or does not load: {str(error)[:80]}")
    return media(value, "video", limits=Limits(video_backend=backend))


def h264(times: list[int], format: str = "mp4", width: int = 64, gop: int = 5) -> bytes:
    """An H.264 video with B-frames: a bar moves right by one step per frame, at `times` in milliseconds."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "10", "threads": "1", "g": str(gop)})
        stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            image = np.zeros((48, width, 3), np.uint8)
            image[:, 4 * number : 4 * number + 8] = (200, 120, 40)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def bars(frames: np.ndarray) -> list[int]:
    """The step of the bar in each frame."""
    return [round((np.flatnonzero(f[..., 0].mean(0) > 100).mean() - 3.5) / 4) for f in frames]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("format", ["mp4", "matroska"])
@pytest.mark.parametrize("start", [0, 700])
def test_at_a_constant_rate_frame_k_is_at_k_over_fps(backend: str, format: str, start: int) -> None:
    video = open_with(backend, h264([start + 100 * k for k in range(12)], format))
    assert video.header()["fps"] == pytest.approx(10, rel=1e-3)
    opened = video.open()
    assert bars(opened.frames) == list(range(12))
    assert np.abs(opened.times - np.arange(12) / 10).max() < 0.05
    sampled = video.open(fps=4, factor=2)
    assert bars(sampled.frames) == sampled.indices.tolist() == [0, 4, 7, 11]
    assert sampled.times == pytest.approx(sampled.indices / 10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("format", ["mp4", "matroska"])
def test_at_a_variable_rate_times_come_from_the_container(backend: str, format: str) -> None:
    opened = open_with(backend, h264(VARIABLE_TIMES, format)).open()
    assert bars(opened.frames) == list(range(12))
    assert opened.times == pytest.approx(np.array(VARIABLE_TIMES) / 1000, abs=1e-6)
    selected = open_with(backend, h264(VARIABLE_TIMES, format)).open(frames=[9, 2, 6])
    assert bars(selected.frames) == selected.indices.tolist() == [2, 6, 9]
    assert selected.times == pytest.approx([0.4, 3.3, 5.3], abs=1e-6)


@pytest.mark.parametrize("backend", BACKENDS[:2])
@pytest.mark.parametrize("times", [[100 * k for k in range(12)], VARIABLE_TIMES])
def test_all_backends_give_the_same_pixels(backend: str, times: list[int]) -> None:
    content = h264(times)
    reference, other = open_with("pyav", content).open(), open_with(backend, content).open()
    assert np.abs(reference.frames.astype(int) - other.frames).max() <= 2
    assert np.array_equal(reference.times, other.times)
    assert np.array_equal(reference.indices, other.indices)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_real_video(backend: str, real) -> None:
    path = real("video/flipping_a_pancake.mkv")[0]
    video = open_with(backend, path)
    opened = video.open(fps=2, min_frames=4, max_frames=768, factor=2)
    assert len(opened.times) == 20
    # 30 fps, with timestamps rounded to milliseconds.
    assert np.abs(opened.times - opened.indices / 30).max() < 0.5 / 30
    reference = open_with("pyav", path).open(frames=opened.indices.tolist())
    assert np.array_equal(reference.times, opened.times)
    assert np.abs(reference.frames.astype(int) - opened.frames).mean() < 1
    # Adjacent frames differ more than backends do, so an off-by-one frame is detected.
    next_frames = open_with("pyav", path).open(frames=[min(int(i) + 1, 309) for i in opened.indices])
    assert (
        np.abs(next_frames.frames.astype(int) - opened.frames).mean()
        > 2 * np.abs(reference.frames.astype(int) - opened.frames).mean()
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_rotated_square_video_is_upright(backend: str, rotation: int) -> None:
    content = bytearray(h264([0, 100], width=48))
    matrix = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[rotation]
    offset = content.index(b"tkhd") + 44
    a, b, c, d = (v << 16 for v in matrix)
    content[offset : offset + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    video = open_with(backend, bytes(content))
    if backend == "decord":
        with pytest.raises(DataError, match="does not rotate"):
            video.open()
        return
    frame = video.open().frames[0].mean(-1)
    sides = {"left": frame[:, :8], "top": frame[:8], "right": frame[:, -8:], "bottom": frame[-8:]}
    # Before the clockwise rotation, the bar is on the left.
    assert max(sides, key=lambda s: sides[s].mean()) == {90: "top", 180: "right", 270: "bottom"}[rotation]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("format", "fraction"), [("mp4", 0.3), ("mp4", 0.6), ("mp4", 0.9), ("matroska", 0.6)])
def test_a_truncated_file_is_refused_by_name(backend: str, fraction: float, format: str, tmp_path: Path) -> None:
    content = h264([100 * k for k in range(16)], format)
    (tmp_path / "cut.vid").write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(DataError, match=r"cut\.vid.*(cut short|cannot be decoded)"):
        open_with(backend, tmp_path / "cut.vid").open()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_without_video_is_refused_by_name(backend: str, tmp_path: Path) -> None:
    (tmp_path / "sound.wav").write_bytes(media((np.zeros(800, np.float32), 8000), "audio").bytes())
    with pytest.raises(DataError, match=r"sound\.wav.*Wanted a video stream, found audio"):
        open_with(backend, tmp_path / "sound.wav").open()
    (tmp_path / "none.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"none\.mp4.*cannot be decoded"):
        open_with(backend, tmp_path / "none.mp4").open()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("format", ["mp4", "matroska", "avi"])
def test_a_stream_without_frames_is_refused_by_name(backend: str, format: str, tmp_path: Path) -> None:
    file = tmp_path / "empty.vid"
    with av.open(str(file), "w", format=format) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        container.start_encoding()
    with pytest.raises(DataError, match=r"empty\.vid.*(an empty one|cut short|cannot be decoded|found none)"):
        open_with(backend, file).open()


@pytest.mark.parametrize("backend", BACKENDS)
def test_damaged_frames_are_refused_by_name(backend: str, tmp_path: Path) -> None:
    content = bytearray(h264([100 * k for k in range(16)], "mp4", gop=1))
    start = content.index(b"mdat") + 4
    middle = (content.index(b"moov") - start) // 3
    content[start + middle : start + 3 * middle] = b"\xff" * (2 * middle)
    (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.mp4"):
        open_with(backend, tmp_path / "bad.mp4").open()


def test_a_backend_with_wrong_timestamps_is_rejected() -> None:
    request = video_backends.FrameRequest([1, 2], np.array([0.0, 0.1, 0.2, 1.0]), (2, 2))
    frames = np.zeros((2, 2, 2, 3), np.uint8)
    assert request.checked(frames, np.array([0.1, 0.249])).shape == frames.shape
    for invalid, times in ((frames, [0.1, 0.3]), (frames[:1], [0.1]), (np.zeros((2, 2, 3, 3)), [0.1, 0.2])):
        with pytest.raises(video_backends.BackendError):
            request.checked(invalid, np.array(times))


def test_auto_falls_back_and_a_named_backend_reports_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    content = h264([0, 100, 200])
    tried = []

    def failing_reader(name: str):
        def read(file, request):
            tried.append(name)
            raise video_backends.BackendError(f"{name} is away")

        return read

    monkeypatch.setattr(video_backends, "READERS", {name: failing_reader(name) for name in video_backends.READERS})
    assert bars(media(content, "video", limits=Limits(video_backend="auto")).open().frames) == [0, 1, 2]
    assert tried == ["decord", "torchcodec"]
    with pytest.raises(
        DataError, match=r"3 frames by decord, found that it cannot: decord is away.*video_backend=auto"
    ):
        media(content, "video", limits=Limits(video_backend="decord")).open()
    assert bars(media(content, "video", limits=Limits(video_backend="pyav")).open().frames) == [0, 1, 2]
    assert tried == ["decord", "torchcodec", "decord"]
