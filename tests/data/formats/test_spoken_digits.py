"""Recordings of spoken digits, split by speaker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpost.data.formats.spoken_digits import WORDS, SpokenDigits
from mmpost.data.media.media import media
from mmpost.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Recordings of three speakers: three digits, two takes each."""
    for number, speaker in enumerate(("ann", "bea", "cid")):
        for digit in (0, 4, 9):
            for take in (0, 1):
                wave = np.full(800, (100 * number + 10 * digit + take) / 1000)
                (tmp_path / f"{digit}_{speaker}_{take}.wav").write_bytes(media((wave, 8000), "audio").bytes())
    (tmp_path / "README.md").write_text("not a recording")
    return tmp_path


def speakers_of(source: SpokenDigits) -> set[str]:
    return {sample.meta["speaker"] for sample in source}


def test_test_speakers_are_in_no_other_split(folder: Path) -> None:
    assert speakers_of(SpokenDigits(folder, "train")) == {"ann", "bea"}
    assert speakers_of(SpokenDigits(folder, "test")) == {"cid"}
    speaker_of_split = {"test": "ann", "val": "bea"}
    assert [speakers_of(SpokenDigits(folder, split, speaker_of_split)) for split in ("train", "val", "test")] == [
        {"cid"},
        {"bea"},
        {"ann"},
    ]


def test_a_recording_becomes_a_multiple_choice_question(folder: Path) -> None:
    source = SpokenDigits(folder, "test", template="{question} {choices}")
    assert len(source) == 6
    for index, sample in enumerate(source):
        choices = sample.meta["choices"]
        assert sample.truth in choices
        assert len(set(choices)) == 4
        assert source.where(index).startswith(f"{WORDS.index(sample.truth)}_cid_")
        assert sample.prompt[1].value == f"which digit? {choices}"
        assert sample.prompt[0].value.open().rate == 8000
    assert source[0] == SpokenDigits(folder, "test", template="{question} {choices}")[0]


def test_training_recordings_are_repeated_at_several_speeds(folder: Path) -> None:
    source = SpokenDigits(folder, "train", speeds=3)
    assert len(source) == 3 * len(SpokenDigits(folder, "train", speeds=1)) == 36
    assert len({sample.uid for sample in source}) == 36
    lengths = [sample.prompt[0].value.header()["duration"] for sample in source]
    assert lengths[:12] == [0.1] * 12
    assert all(0.07 < length < 0.13 for length in lengths)
    assert len(set(lengths[12:])) > 12
    for original, resampled in ((source[2], source[14]), (source[2], source[26])):
        assert (original.truth, original.meta["speaker"]) == (resampled.truth, resampled.meta["speaker"])
    assert source.where(14) == source.where(2)
    assert len(SpokenDigits(folder, "test")) == 6, "test recordings keep their speed"


@pytest.mark.parametrize(
    ("speakers", "error", "message"),
    [
        ({"test": "dan"}, ConfigError, "among ann, bea, cid, found 'dan'"),
        ({"test": "ann", "val": "ann"}, ConfigError, "found ann for both"),
        ({"val": "cid"}, ConfigError, "found cid for both"),
    ],
)
def test_conflicting_speaker_splits_are_refused(folder: Path, speakers: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        SpokenDigits(folder, "train", speakers)


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="DIGIT_SPEAKER_NUMBER"):
        SpokenDigits(tmp_path, "train")
