"""Encodes values in memory as file contents, so that every medium has bytes, a hash and a file format.

Lossless: PNG for images, FFV1 in Matroska for videos, 32-bit float WAV for audio. Only `h264` is lossy, like real
videos.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image, ImageOps

from mmpost.data.media.audio_video import Audio, Video
from mmpost.data.media.preview import png
from mmpost.errors import DataError


def image(value: Any) -> bytes:
    """Encode a PIL image, or a uint8 array [height, width] or [height, width, 1, 3 or 4], as PNG."""
    if not isinstance(value, Image.Image):
        pixels = np.asarray(value)
        if (
            pixels.dtype != np.uint8
            or pixels.ndim not in (2, 3)
            or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4))
        ):
            raise DataError(
                "An image in memory is a PIL image or a uint8 array [height, width, 3]; "
                f"found {type(value).__name__} of {pixels.dtype} {list(pixels.shape)}."
            )
        value = Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
    upright = ImageOps.exif_transpose(value)
    storable = upright.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
    return png(upright if storable else upright.convert("RGB"), level=1)


def video(value: Any) -> bytes:
    """Encode as FFV1: a `Video`, {"frames": ..., "fps": ...}, or PIL images or uint8 arrays at one per second."""
    fps = 1.0
    if isinstance(value, Video):
        value, fps = value.frames, (len(value.times) - 1) / float(np.ptp(value.times)) if len(value.times) > 1 else fps
    if isinstance(value, Mapping) and set(value) == {"frames", "fps"}:
        value, fps = value["frames"], float(value["fps"])
    if isinstance(value, Sequence) and any(isinstance(v, (str, bytes)) for v in value):
        raise DataError(
            "A video is one file, or frames in memory; found a list of files. Join them into one video file."
        )
    frames = np.stack([np.asarray(f.convert("RGB") if isinstance(f, Image.Image) else f) for f in value])
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not fps > 0:
        raise DataError(
            "A video in memory is a uint8 array [frames, height, width, 3] with a positive fps; "
            f"found {frames.dtype} {list(frames.shape)} at {fps} frames per second."
        )
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("ffv1", rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def h264(frames: np.ndarray, fps: float) -> bytes:
    """Encode frames [frame, height, width, 3] with even sides as a lossy MP4; the bytes are deterministic.

    For synthetic datasets that are to be decoded like real videos; `video` is lossless.
    """
    buffer = io.BytesIO()
    # Macroblock-tree rate control makes x264 nondeterministic between runs.
    options = {"crf": "20", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options=options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def audio(value: Any) -> bytes:
    """{"array", "sampling_rate"}, (array, rate), `Audio`, a decoder of `datasets`; [channels, samples] is averaged."""
    if isinstance(value, Audio):
        value = (value.wave, value.rate)
    if hasattr(value, "get_all_samples"):
        samples = value.get_all_samples()
        value = (samples.data, samples.sample_rate)
    if isinstance(value, Mapping) and {"array", "sampling_rate"} <= set(value):
        value = (value["array"], value["sampling_rate"])
    if not (isinstance(value, tuple) and len(value) == 2):
        raise DataError(
            'Audio in memory is {"array": ..., "sampling_rate": ...} or (array, rate); '
            f"found {type(value).__name__}. A waveform needs its sampling rate."
        )
    wave, rate = np.asarray(value[0], np.float32), int(value[1])
    wave = wave.mean(0) if wave.ndim == 2 else wave
    if wave.ndim != 1 or not len(wave) or rate <= 0:
        raise DataError(f"Audio needs a waveform [samples] and a positive rate; found {list(wave.shape)} at {rate} Hz.")
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[None]), format="flt", layout="mono")
    frame.sample_rate = rate
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="wav", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("pcm_f32le", rate=rate, layout="mono")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()
