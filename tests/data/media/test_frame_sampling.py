"""Sampled frames and their pixel budget: the rules of qwen-vl-utils, and the values of Temporal-R1."""

import pytest

from mmpost.data.media.frame_sampling import frame_pixels, sample_frames


@pytest.mark.parametrize("fps", [1.0, 8.0, 23.976, 24.0, 25.0, 29.97, 30.0, 60.0])
@pytest.mark.parametrize("target_fps", [0.5, 1.0, 2.0, 4.0, 100.0])
def test_frames_equal_those_of_qwen_vl_utils(fps: float, target_fps: float) -> None:
    import torch
    from qwen_vl_utils.vision_process import smart_nframes

    for total in [*range(2, 60), 310, 1799, 30_000]:
        for low, high in ((4, 768), (2, 16), (5, 13), (8, 8)):
            options = {"fps": target_fps, "min_frames": low, "max_frames": high}
            count = smart_nframes(options, total, fps)
            indices = sample_frames({"frames": total, "fps": fps}, **options, factor=2)
            assert len(indices) == count
            reference = torch.linspace(0, total - 1, count).round().long().tolist()
            # The library rounds in float32, so a midpoint between two frames may round the other way.
            assert all(abs(a - b) <= (total > 1000) for a, b in zip(indices, reference, strict=True))


def test_a_single_frame_is_sampled_where_the_library_refuses() -> None:
    assert sample_frames({"frames": 1, "fps": 1.0}, fps=2, min_frames=4, factor=2) == [0]


def test_other_factors_and_no_rate() -> None:
    header = {"frames": 11, "fps": 5.0}
    assert sample_frames(header) == list(range(11))
    assert len(sample_frames(header, factor=4)) == 8
    assert sample_frames(header, fps=1) == [0, 10]
    assert sample_frames(header, fps=0.1, min_frames=3) == [0, 5, 10]
    assert sample_frames(header, max_frames=1) == [0]


@pytest.mark.parametrize(
    ("frames", "sizes", "tokens"),
    [
        (60, {(1920, 1080): 1980, (640, 480): 1890, (800, 800): 1920}, 53_521),
        (768, {(1920, 1080): 1152, (640, 480): 1536, (800, 800): 1536}, 4181),
        (8, {(640, 360): 1196}, 401_408),
    ],
)
def test_a_clip_has_at_most_2048_tokens(frames: int, sizes: dict[tuple[int, int], int], tokens: int) -> None:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    max_pixels = frame_pixels(frames, 2048 * 28 * 28, 4 * 28 * 28)
    assert int(max_pixels) == tokens
    for (width, height), expected in sizes.items():
        # The budget is not rounded: at 768 frames, the 480 of 640 x 480 is exactly two units.
        resized_height, resized_width = smart_resize(height, width, 28, 4 * 28 * 28, max_pixels)  # pyright: ignore[reportArgumentType]
        assert (resized_height // 28) * (resized_width // 28) * frames // 2 == expected <= 2048


def test_a_frame_never_has_less_than_the_minimum() -> None:
    assert frame_pixels(10_000, 2048 * 28 * 28, 4 * 28 * 28) == int(4 * 28 * 28 * 1.05) == 3292
    assert frame_pixels(2, 10**9, 4 * 28 * 28) == 768 * 28 * 28
