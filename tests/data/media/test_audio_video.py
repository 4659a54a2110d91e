"""Video and audio: frames with timestamps, resampling, limits and malformed files."""

import io
import struct
import wave

import av
import numpy as np
import pytest
from PIL import Image

from mmpost.data.media.limits import Limits
from mmpost.data.media.media import media, sample_frames
from mmpost.data.worlds.clips import Clips
from mmpost.errors import DataError

RNG = np.random.default_rng(0)


def test_video_frames_have_timestamps():
    frames = RNG.integers(0, 256, (10, 16, 32, 3), dtype=np.uint8)
    video = media({"frames": frames, "fps": 4}, "video")
    assert video.header() == {"width": 32, "height": 16, "frames": 10, "fps": 4.0, "duration": 2.5}
    opened = video.open()
    assert np.array_equal(opened.frames, frames)
    assert opened.times == pytest.approx(np.arange(10) / 4)
    for fps, max_frames in ((2, None), (100, None), (None, 3), (2, 2), (0.01, None)):
        sampled = video.open(fps=fps, max_frames=max_frames)
        assert sampled.indices.tolist() == sample_frames(video.header(), fps, max_frames)
        assert np.array_equal(sampled.frames, frames[sampled.indices])
        assert sampled.times == pytest.approx(sampled.indices / 4)
    assert video.open(fps=2).indices.tolist() == [0, 2, 4, 7, 9]
    assert video.open(frames=[7, 3]).indices.tolist() == [3, 7]
    with pytest.raises(DataError, match="frames 0 to 9"):
        video.open(frames=[10])
    assert np.array_equal(media([Image.fromarray(f) for f in frames], "video").open().frames, frames)


def test_a_rotated_video_is_upright_in_header_and_frames():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        image = np.zeros((32, 64, 3), np.uint8)
        image[:16, :32] = 255
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    content = bytearray(buffer.getvalue())
    # The rotation matrix of the track header, as phones write it for portrait videos.
    matrix = content.index(b"tkhd") + 44
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    video = media(content, "video")
    assert (video.header()["width"], video.header()["height"]) == (32, 64)
    frame = video.open().frames[0]
    assert frame.shape == (64, 32, 3)
    corners = {"top left": frame[:32, :16], "top right": frame[:32, 16:], "bottom right": frame[32:, 16:]}
    # Clockwise by 90 degrees takes the top left corner to the top right.
    assert max(corners, key=lambda name: corners[name].mean()) == "top right"


def test_a_video_with_too_many_pixels_is_refused():
    video = media(np.zeros((8, 16, 16, 3), np.uint8), "video", limits=Limits(total=1000))
    with pytest.raises(DataError, match=r"8 frames of 16 x 16, which is 2,048.*max_frames.*data\.max_media_pixels"):
        video.open()
    assert len(video.open(max_frames=2).frames) == 2
    for use in ("open", "header"):
        with pytest.raises(DataError, match=r"at most 255 pixels, found 16 x 16.*data\.max_frame_pixels"):
            getattr(media(video.bytes(), "video", limits=Limits(frame=255)), use)()


def test_audio_with_too_many_samples_is_refused():
    audio = media((np.zeros(8000, np.float32), 8000), "audio", limits=Limits(total=7999))
    assert audio.header()["duration"] == 1.0
    with pytest.raises(DataError, match=r"1 s of 1 channels, which is 8,000.*data\.max_media_pixels"):
        audio.open()
    assert len(media(audio.bytes(), "audio", limits=Limits(total=8000)).open().wave) == 8000


def test_a_truncated_video_is_refused(tmp_path):
    content = media(RNG.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), "video").bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    for use in ("open", "header"):
        with pytest.raises(DataError, match=r"cut\.mkv.*cut short"):
            getattr(media("cut.mkv", "video", root=tmp_path), use)()


def test_audio_is_mono_at_the_requested_rate():
    tone = np.sin(np.arange(8000) * 2 * np.pi * 440 / 16000).astype(np.float32)
    audio = media({"array": tone, "sampling_rate": 16000, "path": "x.wav"}, "audio")
    assert audio.header() == {"rate": 16000, "duration": 0.5}
    opened = audio.open()
    assert (opened.rate, opened.wave.dtype) == (16000, np.float32)
    assert np.array_equal(opened.wave, tone)
    downsampled = audio.open(rate=8000)
    assert downsampled.rate == 8000
    assert abs(len(downsampled.wave) - 4000) <= 1
    assert np.argmax(np.abs(np.fft.rfft(downsampled.wave[:4000]))) == 220
    stereo = media((np.stack([tone, -tone]), 16000), "audio").open()
    assert np.abs(stereo.wave).max() < 1e-6
    assert media(audio.bytes()[: len(audio.bytes()) - 1000], "audio").header() == {"rate": 16000, "duration": 0.484375}


def test_stereo_files_are_mixed_and_truncated_files_refused(tmp_path):
    buffer = io.BytesIO()
    left = np.full(4000, 0.5, np.float32)
    with av.open(buffer, "w", format="wav") as container:
        stream = container.add_stream("pcm_f32le", rate=8000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.stack([left, 0 * left], 1).reshape(1, -1), format="flt", layout="stereo")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    decoded = media(buffer.getvalue(), "audio").open()
    assert decoded.wave == pytest.approx(np.full(4000, 0.25))
    (tmp_path / "cut.wav").write_bytes(buffer.getvalue()[:5000])
    with pytest.raises(DataError, match=r"cut\.wav.*cut short"):
        media("cut.wav", "audio", root=tmp_path).open()


@pytest.mark.parametrize(("value", "modality"), [(np.zeros(5), "audio"), ((np.zeros((2, 2, 2)), 8000), "audio")])
def test_audio_needs_a_waveform_and_a_rate(value, modality):
    with pytest.raises(DataError, match="rate"):
        media(value, modality)


@pytest.mark.parametrize("target", ["http://127.0.0.1:9/a.ts", "file://{0}/whole.mkv", "{0}/whole.mkv"])
@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list.ffconcat"])
def test_playlists_are_not_followed(tmp_path, target, name):
    content = media(np.zeros((3, 16, 16, 3), np.uint8), "video").bytes()
    (tmp_path / "whole.mkv").write_bytes(content)
    line = target.format(tmp_path)
    concat = name.endswith("concat")
    text = f"ffconcat version 1.0\nfile '{line}'\n" if concat else f"#EXTM3U\n#EXTINF:9,\n{line}\n#EXT-X-ENDLIST\n"
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="cannot be decoded"):
        media(name, "video", root=tmp_path).open()


def wav(samples: np.ndarray, rate: int = 8000, layout: str = "mono") -> bytes:
    """Samples [time, channel] as a WAV file of float32."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="wav") as container:
        stream = container.add_stream("pcm_f32le", rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.float32(samples).reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def wav_without_samples() -> bytes:
    """A valid WAV file without samples."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (wav_without_samples(), "empty stream"),
        (wav(np.array([[0.1], [np.nan], [np.inf], [0.2]] * 100)), "found 200 that are not"),
        (wav(np.zeros((4000, 1)))[:5000], "cut short"),
        (wav(np.zeros((4000, 1)))[:20], "cannot be decoded"),
        (b"RIFF", "cannot be decoded"),
        (b"", "cannot be decoded"),
    ],
)
def test_malformed_audio_is_refused_by_name(tmp_path, content, message):
    (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(DataError, match=rf"bad\.wav.*{message}"):
        media("bad.wav", "audio", root=tmp_path).open(rate=16000)


def test_audio_at_another_rate_is_resampled(tmp_path):
    time = np.arange(11025) / 11025
    (tmp_path / "odd.wav").write_bytes(wav(np.sin(2 * np.pi * 500 * time)[:, None], rate=11025))
    opened = media("odd.wav", "audio", root=tmp_path).open(rate=16000)
    assert opened.rate == 16000
    assert len(opened.wave) == pytest.approx(16000, abs=20)
    assert np.argmax(np.abs(np.fft.rfft(opened.wave[:16000], 16000))) == 500


def test_the_first_channel_can_be_used_alone():
    stereo = np.stack([np.full(4000, 0.5), np.full(4000, -0.1)], 1)
    content = wav(stereo, layout="stereo")
    mean, first = media(content, "audio"), media(content, "audio", channel="first")
    assert mean.open().wave == pytest.approx(np.full(4000, 0.2))
    assert first.open().wave == pytest.approx(np.full(4000, 0.5))
    assert first.open(rate=16000).wave[100:7900] == pytest.approx(np.full(7800, 0.5), abs=1e-3)
    assert mean != first, "the decoded value of one must not be served for the other"
    assert mean.hash != first.hash
    assert first == media(content, "audio", channel="first")
    with pytest.raises(DataError, match=r"mean, first.*'second'"):
        media(content, "audio", channel="second").open()


def test_a_blank_video_has_the_same_header_and_black_frames() -> None:
    video = Clips("val", ("when",), n=1)[0].prompt[0].value
    blank = video.blank()
    assert blank is not None
    assert blank.header() == video.header()
    assert blank.hash != video.hash
    assert blank != video
    blank_frames, original_frames = (m.open(fps=1, min_frames=2, max_frames=4) for m in (blank, video))
    assert blank_frames.frames.shape == original_frames.frames.shape
    assert len(blank_frames.frames) <= 4
    assert not blank_frames.frames.any()
    assert original_frames.frames.any()
    assert (blank_frames.times == original_frames.times).all()
    decoded = media(blank.bytes(), "video").open()
    assert len(decoded.frames) == video.header()["frames"]
    assert decoded.frames.max() < 8


def test_blank_audio_has_the_same_length():
    blank = media(wav(RNG.normal(size=(4001, 2)), layout="stereo"), "audio").blank()
    assert blank is not None
    opened = blank.open()
    assert (opened.rate, opened.wave.tolist()) == (8000, [0.0] * 4001)
