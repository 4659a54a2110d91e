"""How processors and models of transformers take each kind of medium: the one table that a further kind joins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8
from transformers.video_utils import VideoMetadata

from mmpost.config.settings import ModelSettings
from mmpost.data.media.media import Audio, Media, sample_frames
from mmpost.errors import DataError

TICKS = 1000
"""Per second: times of frames are told to processors as frames of a film with that many."""


@dataclass(frozen=True, eq=False)
class VideoFrames:
    """Frames of a video as a model sees them."""

    frames: UInt8[np.ndarray, "frame height width 3"]
    times: Float64[np.ndarray, " frame"]
    """Seconds from the start of the video."""
    duration: float
    """Seconds of the whole video."""

    @property
    def step(self) -> float:
        """Seconds from one frame to the next, on average: published models reckon with duration / frames."""
        return self.duration / len(self.frames)


@dataclass(frozen=True)
class MediaProcessor:
    """One kind of medium on its way into a model."""

    modality: str
    owner: str
    """The processor's attribute that holds the part for this kind."""
    argument: str
    """The processor's argument that takes these media."""
    features: str
    """The model's method that encodes them."""
    inner: Any
    """The part of the processor for this kind."""
    open: Callable[[Media], Any]
    """The decoded medium; raises DataError for one that the model cannot take."""
    call: Callable[[Sequence[Any]], tuple[Any, dict[str, Any]]]
    """Decoded media as `inner` takes them, and what it must be told about them besides."""
    probes: Callable[[], tuple[Any, Any]]
    """Two decoded media of different sizes, to see whether `inner` treats neighbours apart."""
    seconds: Callable[[Sequence[Any]], list[float]] = lambda opened: []
    """Seconds from one grid of frames to the next, for each of media that have frames."""
    example: Callable[[], Any] = lambda: None
    """A small medium in memory, to try a model on."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Outputs of `inner` that processors rename."""

    def run(self, opened: Sequence[Any], options: dict[str, Any]) -> dict[str, Any]:
        """The outputs of `inner` for these media, under the names that models know."""
        values, more = self.call(opened)
        found = dict(self.inner(values, **(options | more)))
        for old, new in self.renamed:
            if old in found:
                found[new] = found.pop(old)
        return found


def media_processors(processor: Any, settings: ModelSettings) -> dict[str, MediaProcessor]:
    """The kinds of media that a processor takes."""
    makers = (("image_processor", _image), ("video_processor", _video), ("feature_extractor", _audio))
    found = {}
    for owner, make in makers:
        inner = getattr(processor, owner, None)
        if inner is not None:
            intake = make(owner, inner, settings)
            found[intake.modality] = intake
    return found


def _image(owner: str, inner: Any, _: ModelSettings) -> MediaProcessor:
    def call(opened: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
        return [list(opened)], {}

    def probes() -> tuple[Any, Any]:
        return _noise(64, 96, 3), _noise(80, 48, 3)

    return MediaProcessor(
        *("image", owner, "images", "get_image_features", inner, lambda m: m.open(), call, probes),
        example=lambda: _noise(56, 56, 3),
    )


def _video(owner: str, inner: Any, settings: ModelSettings) -> MediaProcessor:
    def open_(medium: Media) -> VideoFrames:
        header = medium.header()
        factor = getattr(inner, "temporal_patch_size", 1)
        chosen = sample_frames(header, settings.fps, settings.max_frames, settings.min_frames, factor)
        video = medium.open(frames=chosen)
        return VideoFrames(video.frames, video.times, header["duration"])

    def call(opened: Sequence[VideoFrames]) -> tuple[Any, dict[str, Any]]:
        about = {"video_metadata": [video_metadata(film) for film in opened], "do_sample_frames": False}
        return [film.frames for film in opened], about

    def probes() -> tuple[VideoFrames, VideoFrames]:
        long, short = (np.stack([_noise(*size, 3)] * n) for size, n in (((64, 96), 6), ((80, 48), 4)))
        return VideoFrames(long, np.arange(6) / 2, 3.0), VideoFrames(short, np.arange(4.0), 4.0)

    def film() -> dict[str, Any]:
        return {"frames": [_noise(56, 56, 3)] * 4, "fps": settings.fps}

    def seconds(opened: Sequence[VideoFrames]) -> list[float]:
        return [film.step * getattr(inner, "temporal_patch_size", 1) for film in opened]

    return MediaProcessor("video", owner, "videos", "get_video_features", inner, open_, call, probes, seconds, film)


def video_metadata(film: VideoFrames) -> VideoMetadata:
    """The times of the frames, in the only form that processors read them in: numbers of frames of a film."""
    height, width = film.frames.shape[1:3]
    return VideoMetadata(
        total_num_frames=max(1, round(film.duration * TICKS)),
        fps=TICKS,
        width=width,
        height=height,
        duration=film.duration,
        frames_indices=[round(t * TICKS) for t in film.times],
    )


def _audio(owner: str, inner: Any, _: ModelSettings) -> MediaProcessor:
    def open_(medium: Media) -> Audio:
        sound: Audio = medium.open(rate=inner.sampling_rate)
        longest = getattr(inner, "n_samples", None)
        if longest is not None and len(sound.wave) > longest:
            raise DataError(
                f"{medium.name[:300]}: wanted at most {longest / sound.rate:g} s of sound, which is what this model "
                f"hears, found {len(sound.wave) / sound.rate:.1f} s: cut it into shorter ones"
            )
        return sound

    def call(opened: Sequence[Audio]) -> tuple[Any, dict[str, Any]]:
        return [sound.wave for sound in opened], {"sampling_rate": inner.sampling_rate}

    def probes() -> tuple[Audio, Audio]:
        rate = inner.sampling_rate
        return Audio(_wave(rate // 4), rate), Audio(_wave(rate // 3), rate)

    return MediaProcessor(
        *("audio", owner, "audio", "get_audio_features", inner, open_, call, probes),
        example=lambda: (_wave(inner.sampling_rate // 4), inner.sampling_rate),
        renamed=(("attention_mask", "feature_attention_mask"),),
    )


def _noise(*shape: int) -> np.ndarray:
    return (np.arange(int(np.prod(shape))) * 7919 % 251).astype(np.uint8).reshape(shape)


def _wave(samples: int) -> np.ndarray:
    return np.sin(np.arange(samples) ** 1.5 / 40).astype(np.float32)
