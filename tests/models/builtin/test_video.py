"""The tiny video model: short prompts and answers, and a clock that follows the seconds of a video."""

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
    place = tmp_path_factory.mktemp("models") / "tiny-video"
    write_tiny_video(place)
    return str(place)


def test_prompts_and_answers_are_short(folder: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert all(len(tokenizer.encode(piece)) == 1 for piece in PIECES)
    for sample in Clips("val", QUESTION_TYPES, n=16):
        assert len(tokenizer.encode(sample.prompt[1].value)) <= 4
        assert len(tokenizer.encode(answer_text(sample.truth))) <= 14


def test_the_clock_is_that_of_the_released_model(folder: str) -> None:
    assert AutoConfig.from_pretrained(folder).vision_config.tokens_per_second == 2


def ends(folder: str, frames: int, fps: float, rate: float) -> tuple[int, int]:
    """(last time position of the video, first position of the reply) of one prompt."""
    model = ChatModel.load(folder, ModelSettings(device="cpu", positions="original", fps=rate))
    video = media({"frames": np.zeros((frames, 56, 56, 3), np.uint8), "fps": fps}, "video")
    prompt = model.prompt(Sample("v", (Part("video", video), Part("text", "which digit is there?"))))
    seen = prompt.aligned["mm_token_type_ids"] == 2
    return int((prompt.positions[0][seen] - prompt.positions[0][seen][0]).max()), prompt.next_position


def test_positions_follow_the_seconds_and_not_the_frames(folder: str) -> None:
    few, many, slow = ends(folder, 12, 2.0, 2.0), ends(folder, 24, 4.0, 4.0), ends(folder, 12, 1.0, 1.0)
    # Six seconds at two positions a second: the last grid begins at 5 s of 12 frames, at 5.5 s of 24.
    assert (few[0], many[0]) == (10, 11)
    assert abs(few[1] - many[1]) <= 1
    assert slow[0] == 20, "the same frames over twice the time"
