"""Rows of AVQA, of MMAU and of users as multiple-choice questions about a clip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpost.config.settings import DataSettings
from mmpost.data.formats.choices import NO_QUESTION, Choices
from mmpost.data.media.media import media
from mmpost.data.readers.user_data import user_data
from mmpost.errors import DataError

AVQA = {
    "id": 183,
    "video_name": "-HG3Omg_89c_000030",
    "video_id": 341,
    "question_text": "What happened in the video?",
    "multi_choice": ["motorboat", "Yacht consignment", "Sailboat set sail", "Consignment car"],
    "answer": 0,
    "question_relation": "View",
    "question_type": "Happening",
}
MMAU = {
    "id": "3fe6",
    "audio_id": "./clips/3fe6.wav",
    "question": "Who speaks in the video call?",
    "choices": ["Man", "Woman"],
    "answer": "Woman",
    "dataset": "AudioSet",
    "task": "speech",
    "split": "test-mini",
    "category": ["Reasoning"],
    "sub-category": "Speaker",
    "difficulty": "hard",
}


@pytest.fixture
def open_choices(tmp_path: Path) -> Any:
    """A function that writes rows as a JSON list next to their clips, and opens them as `Choices`."""

    def write(*records: dict[str, Any], **options: Any) -> Choices:
        (tmp_path / "clips").mkdir(exist_ok=True)
        stereo = np.stack([np.full(800, 0.5), np.full(800, 0.1)])
        sound = media((stereo[0], 8000), "audio").bytes()
        for name in ("-HG3Omg_89c_000030.wav", "clips/3fe6.wav", "own.wav"):
            (tmp_path / name).write_bytes(sound)
        file = tmp_path / "rows.json"
        file.write_text(json.dumps(records))
        samples = user_data(DataSettings(train=str(file)), "train", loss="last", prompt=NO_QUESTION)
        assert samples is not None
        return Choices(samples, **options)

    return write


def test_avqa(open_choices: Any) -> None:
    sample = open_choices(AVQA, template="{question} Choose from {choices}.")[0]
    assert sample.uid == "183"
    assert sample.truth == "motorboat"
    assert [p.modality for p in sample.prompt] == ["audio", "text"]
    assert sample.prompt[1].value == (
        "What happened in the audio? Choose from "
        "['motorboat', 'Yacht consignment', 'Sailboat set sail', 'Consignment car']."
    )
    assert sample.meta["kind"] == "Happening"
    assert sample.prompt[0].value.open().rate == 8000
    assert open_choices({**AVQA, "audio_path": "own.wav"})[0].prompt[0].value.name.endswith("own.wav")


def test_mmau(open_choices: Any) -> None:
    sample = open_choices(MMAU)[0]
    assert (sample.uid, sample.truth, sample.meta["kind"]) == ("3fe6", "Woman", "speech")
    assert sample.prompt[1].value == "Who speaks in the video call? ['Man', 'Woman']"
    assert len(sample.prompt[0].value.open().wave) == 800


def test_user_rows(open_choices: Any) -> None:
    row = {"audio": "own.wav", "choices": ["one", "two"], "answer": 1}
    chat_turns = {
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "<audio>How many?"}]
    }
    plain, chat = open_choices({**row, "problem": "How many?"}, {**row, **chat_turns})
    assert plain.prompt == chat.prompt[1:]
    assert (chat.prompt[0].role, plain.truth, plain.meta["kind"]) == ("system", "two", "own")


def test_the_first_channel_can_be_selected(open_choices: Any) -> None:
    mean, first = open_choices(MMAU)[0].prompt[0].value, open_choices(MMAU, channel="first")[0].prompt[0].value
    assert mean != first
    assert np.array_equal(mean.open().wave, first.open().wave), "a mono file has one channel"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": 4}, "an index from 0 to 3, found 4"),
        ({"answer": True}, "found True"),
        ({"answer": "boat"}, "found 'boat'"),
        ({"multi_choice": None}, "wanted `choices`"),
        ({"multi_choice": ["one"]}, "two or more"),
        ({"multi_choice": [1, 2]}, "two or more"),
        ({"video_name": None}, "wanted a clip, found none"),
        ({"question_text": None}, "wanted a question, found none"),
    ],
)
def test_invalid_rows_are_named_with_the_reason(open_choices: Any, change: dict[str, Any], message: str) -> None:
    source = open_choices(MMAU, {**AVQA, **change})
    assert source[0].truth == "Woman"
    with pytest.raises(DataError, match=rf"rows\.json:2.*{message}"):
        source[1]


def test_paths_in_a_split_or_mix_are_relative_to_their_own_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        clip = media((np.full(80, 0.1 if name == "a" else 0.2), 8000), "audio")
        (tmp_path / name / "x.wav").write_bytes(clip.bytes())
        lines = [json.dumps({**MMAU, "id": f"{name}{i}", "audio_id": "x.wav"}) for i in range(8)]
        (tmp_path / name / "rows.jsonl").write_text("\n".join(lines))
    files = tuple(str(tmp_path / name / "rows.jsonl") for name in ("a", "b"))
    for data in (DataSettings(train=files), DataSettings(train=files, split=(0.5, 0.25, 0.25))):
        samples = user_data(data, "train", loss="last")
        assert samples is not None
        for sample in Choices(samples):
            level = 0.1 if "a" in sample.uid else 0.2
            assert sample.prompt[0].value.open().wave == pytest.approx(np.full(80, level))
