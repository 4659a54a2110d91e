"""How processors and models of transformers take each modality: one `MediaProcessor` each, made by a function here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8
from transformers.video_utils import VideoMetadata

from mmpost.config.settings import ModelSettings
from mmpost.data.media.media import Audio, Media, sample_frames
from mmpost.errors import ConfigError, DataError

TICKS = 1000
"""Frames per second of the nominal video whose frame numbers stand in for times; see `video_metadata`."""


@dataclass(frozen=True, eq=False)
class VideoFrames:
    """The frames sampled from a video, with their times."""

    frames: UInt8[np.ndarray, "frame height width 3"]
    times: Float64[np.ndarray, " frame"]
    """Seconds from the start of the video."""
    duration: float
    """Seconds of the video that the frames were sampled from."""

    @property
    def step(self) -> float:
        """Mean seconds between frames, as published models compute it: duration / frames."""
        return self.duration / len(self.frames)


@dataclass(frozen=True)
class MediaProcessor:
    """The way of one modality through a processor of transformers into a model."""

    modality: str
    attribute: str
    """The processor's attribute that holds the sub-processor of this modality."""
    argument: str
    """The argument of the processor's call that takes these media."""
    feature_method: str
    """The method of the model that encodes them."""
    subprocessor: Any
    """The processor's image processor, video processor or feature extractor."""
    open: Callable[[Media], Any]
    """Decodes a medium; raises DataError for one that the model cannot take."""
    call: Callable[[Sequence[Any]], tuple[Any, dict[str, Any]]]
    """Decoded media in the form that `subprocessor` takes, and keyword arguments that describe them."""
    probes: Callable[[], tuple[Any, Any]]
    """Two decoded media of different sizes, to test whether `subprocessor` treats media independently."""
    grid_seconds: Callable[[Sequence[Any]], list[float]] = lambda opened: []
    """For each medium with frames, the seconds from one temporal patch to the next."""
    example: Callable[[], Any] = lambda: None
    """A small medium in memory, to test a model with."""
    renamed: tuple[tuple[str, str], ...] = ()
    """(name in the output of `subprocessor`, name in the output of the processor), where they differ."""

    def run(self, opened: Sequence[Any], options: dict[str, Any]) -> dict[str, Any]:
        """The output of `subprocessor` for decoded media, under the names that the model knows.

        Raises ValueError for media that it does not take, and ConfigError where it cannot work with its settings.
        """
        values, description = self.call(opened)
        try:
            output = dict(self.subprocessor(values, **(options | description)))
        except (TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as e:
            raise ConfigError(
                f"wanted settings that {type(self.subprocessor).__name__} can work with, found {self.modality} inputs "
                f"for which it raises {type(e).__name__}: {e}. Correct processor_config.json (or "
                "preprocessor_config.json) of the model, or copy it again"
            ) from e
        for inner, outer in self.renamed:
            if inner in output:
                output[outer] = output.pop(inner)
        return output


def media_processors(processor: Any, settings: ModelSettings) -> dict[str, MediaProcessor]:
    """The modalities that a processor of transformers takes, by name."""
    factories = (("image_processor", _image), ("video_processor", _video), ("feature_extractor", _audio))
    processors = {}
    for attribute, factory in factories:
        subprocessor = getattr(processor, attribute, None)
        if subprocessor is not None:
            media_processor = factory(attribute, subprocessor, settings)
            processors[media_processor.modality] = media_processor
    return processors


def _image(attribute: str, subprocessor: Any, _: ModelSettings) -> MediaProcessor:
    return MediaProcessor(
        modality="image",
        attribute=attribute,
        argument="images",
        feature_method="get_image_features",
        subprocessor=subprocessor,
        open=lambda medium: medium.open(),
        # Processors take a list of images for each text, and here there is one text.
        call=lambda opened: ([list(opened)], {}),
        probes=lambda: (_noise(64, 96, 3), _noise(80, 48, 3)),
        example=lambda: _noise(56, 56, 3),
    )


def _video(attribute: str, subprocessor: Any, settings: ModelSettings) -> MediaProcessor:
    temporal_patch = getattr(subprocessor, "temporal_patch_size", 1)

    def open_(medium: Media) -> VideoFrames:
        header = medium.header()
        chosen = sample_frames(header, settings.fps, settings.max_frames, settings.min_frames, temporal_patch)
        video = medium.open(frames=chosen)
        return VideoFrames(video.frames, video.times, header["duration"])

    def call(opened: Sequence[VideoFrames]) -> tuple[Any, dict[str, Any]]:
        metadata = [video_metadata(video) for video in opened]
        return [video.frames for video in opened], {"video_metadata": metadata, "do_sample_frames": False}

    def probes() -> tuple[VideoFrames, VideoFrames]:
        long, short = (np.stack([_noise(*size, 3)] * n) for size, n in (((64, 96), 6), ((80, 48), 4)))
        return VideoFrames(long, np.arange(6) / 2, 3.0), VideoFrames(short, np.arange(4.0), 4.0)

    return MediaProcessor(
        modality="video",
        attribute=attribute,
        argument="videos",
        feature_method="get_video_features",
        subprocessor=subprocessor,
        open=open_,
        call=call,
        probes=probes,
        grid_seconds=lambda opened: [video.step * temporal_patch for video in opened],
        example=lambda: {"frames": [_noise(56, 56, 3)] * 4, "fps": settings.fps},
    )


def video_metadata(video: VideoFrames) -> VideoMetadata:
    """The times of frames in the only form that processors take: frame numbers of a video with a frame rate.

    Sampled times need not be multiples of the video's frame time, hence numbers at `TICKS` frames per second.
    """
    height, width = video.frames.shape[1:3]
    return VideoMetadata(
        total_num_frames=max(1, round(video.duration * TICKS)),
        fps=TICKS,
        width=width,
        height=height,
        duration=video.duration,
        frames_indices=[round(t * TICKS) for t in video.times],
    )


def _audio(attribute: str, subprocessor: Any, _: ModelSettings) -> MediaProcessor:
    def open_(medium: Media) -> Audio:
        audio: Audio = medium.open(rate=subprocessor.sampling_rate)
        # Whisper's feature extractor would silently truncate it.
        max_samples = getattr(subprocessor, "n_samples", None)
        if max_samples is not None and len(audio.wave) > max_samples:
            raise DataError(
                f"{medium.name[:300]}: wanted at most {max_samples / audio.rate:g} s of sound, this model's limit, "
                f"found {len(audio.wave) / audio.rate:.1f} s; cut it into shorter clips"
            )
        return audio

    def wave(fraction: int) -> tuple[np.ndarray, int]:
        """1 / `fraction` seconds."""
        return _wave(subprocessor.sampling_rate // fraction), subprocessor.sampling_rate

    return MediaProcessor(
        modality="audio",
        attribute=attribute,
        argument="audio",
        feature_method="get_audio_features",
        subprocessor=subprocessor,
        open=open_,
        call=lambda opened: ([audio.wave for audio in opened], {"sampling_rate": subprocessor.sampling_rate}),
        probes=lambda: (Audio(*wave(4)), Audio(*wave(3))),
        example=lambda: wave(4),
        renamed=(("attention_mask", "feature_attention_mask"),),
    )


def _noise(*shape: int) -> np.ndarray:
    return (np.arange(int(np.prod(shape))) * 7919 % 251).astype(np.uint8).reshape(shape)


def _wave(samples: int) -> np.ndarray:
    return np.sin(np.arange(samples) ** 1.5 / 40).astype(np.float32)
