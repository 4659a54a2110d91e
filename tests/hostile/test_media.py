"""Media that must not be opened, or not as what their names say."""

from __future__ import annotations

import io
import os
import wave
from pathlib import Path

import numpy as np
import pytest

from mmpost.data.media.media import media
from mmpost.errors import DataError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


def test_an_image_is_opened_as_a_listed_format_only(tmp_path: Path) -> None:
    """Pillow hands EPS to Ghostscript, whatever the file is called."""
    (tmp_path / "a.jpg").write_bytes(EPS)
    for source in (tmp_path / "a.jpg", EPS):
        for use in ("header", "open"):
            with pytest.raises(DataError, match=r"wanted an image \(PNG, JPEG.*found a file that is none of these"):
                getattr(media(source, "image"), use)()


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """Reading a pipe that nobody writes to would wait forever."""
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero"), tmp_path):
        for modality in ("image", "video", "audio"):
            with pytest.raises(DataError, match="found a folder, pipe or device"):
                media(path, modality).header()
            with pytest.raises(DataError, match="found a folder, pipe or device"):
                assert media(path, modality).hash


@pytest.mark.parametrize("channels", [1, 2, 7, 8, 9, 51])
def test_audio_of_any_number_of_channels(channels: int) -> None:
    """With eight channels (7.1 sound) or more, planes are read beyond their pointers, and the process dies."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes((np.arange(100 * channels) % channels * 100).astype(np.int16).tobytes())
    medium = media(file.getvalue(), "audio")
    expected = sum(range(channels)) / channels * 100 / 2**15
    np.testing.assert_allclose(medium.open().wave, np.full(100, expected, np.float32), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(medium.open(channel="first").wave, np.zeros(100, np.float32))
    assert medium.open(rate=4000).wave.shape == pytest.approx((50,), abs=20)


@pytest.mark.parametrize("broken", [False, True])
def test_planar_frames_of_many_channels_are_checked_for_finite_samples(broken: bool) -> None:
    """AAC in 7.1 decodes to eight planes of floats."""
    import av

    from mmpost.data.media.audio_video import _finite

    values = np.zeros((1, 800), np.float32)
    values[0, 3] = np.nan if broken else 0.5
    frame = av.AudioFrame.from_ndarray(values, format="flt", layout="7.1")
    frame.rate = 8000
    (planar,) = av.AudioResampler(format="fltp").resample(frame)
    if broken:
        with pytest.raises(DataError, match="Wanted finite samples, found 1 that are not"):
            _finite(planar)
    else:
        assert _finite(planar) is planar
