"""The tiny video model: short prompts and answers, and time positions in seconds."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import AutoConfig, AutoTokenizer

from mmpost.config.settings import ModelSettings
from mmpost.data.formats.temporal import answer_text
from mmpost.data.media.media import media
from mmpost.data.worlds.clips import QUESTION_TYPES, Clips
from mmpost.models.builtin.video import PIECES, write_tiny_video
from mmpost.models.chat.model import ChatModel
from mmpost.types import Part, Sample


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("models") / "tiny-video"
    write_tiny_video(path)
    return str(path)


def test_prompts_and_answers_are_short(folder: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert all(len(tokenizer.encode(piece)) == 1 for piece in PIECES)
    for sample in Clips("val", QUESTION_TYPES, n=16):
        assert len(tokenizer.encode(sample.prompt[1].value)) <= 4
        assert len(tokenizer.encode(answer_text(sample.truth))) <= 14


def test_tokens_per_second_is_that_of_the_released_model(folder: str) -> None:
    assert AutoConfig.from_pretrained(folder).vision_config.tokens_per_second == 2


def ends(folder: str, frames: int, fps: float, sampling_fps: float) -> tuple[int, int]:
    """(last time position of the video, first position of the reply) of one prompt."""
    model = ChatModel.load(folder, ModelSettings(device="cpu", positions="original", fps=sampling_fps))
    video = media({"frames": np.zeros((frames, 56, 56, 3), np.uint8), "fps": fps}, "video")
    prompt = model.prompt(Sample("v", (Part("video", video), Part("text", "which digit is there?"))))
    is_video = prompt.aligned["mm_token_type_ids"] == 2
    return int((prompt.positions[0][is_video] - prompt.positions[0][is_video][0]).max()), prompt.next_position


def test_positions_follow_the_seconds_and_not_the_frames(folder: str) -> None:
    twelve_frames, twenty_four_frames, half_rate = (
        ends(folder, 12, 2.0, 2.0),
        ends(folder, 24, 4.0, 4.0),
        ends(folder, 12, 1.0, 1.0),
    )
    # 6 s at two positions per second: the last temporal patch starts at 5 s with 12 frames, at 5.5 s with 24.
    assert (twelve_frames[0], twenty_four_frames[0]) == (10, 11)
    assert abs(twelve_frames[1] - twenty_four_frames[1]) <= 1
    assert half_rate[0] == 20, "the same frames over twice the time"
