"""Recordings of spoken digits, apart by speaker."""

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
    """Three speakers, three digits, two takes each."""
    for number, who in enumerate(("ann", "bea", "cid")):
        for digit in (0, 4, 9):
            for take in (0, 1):
                wave = np.full(800, (100 * number + 10 * digit + take) / 1000)
                (tmp_path / f"{digit}_{who}_{take}.wav").write_bytes(media((wave, 8000), "audio").bytes())
    (tmp_path / "README.md").write_text("not a recording")
    return tmp_path


def heard(source: SpokenDigits) -> set[str]:
    return {sample.meta["speaker"] for sample in source}


def test_who_is_tested_is_heard_nowhere_else(folder: Path) -> None:
    assert heard(SpokenDigits(folder, "train")) == {"ann", "bea"}
    assert heard(SpokenDigits(folder, "test")) == {"cid"}
    held = {"test": "ann", "val": "bea"}
    assert [heard(SpokenDigits(folder, split, held)) for split in ("train", "val", "test")] == [
        {"cid"},
        {"bea"},
        {"ann"},
    ]


def test_a_recording_with_its_options(folder: Path) -> None:
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


def test_each_recording_is_trained_on_at_several_speeds(folder: Path) -> None:
    source = SpokenDigits(folder, "train", speeds=3)
    assert len(source) == 3 * len(SpokenDigits(folder, "train", speeds=1)) == 36
    assert len({sample.uid for sample in source}) == 36
    lengths = [sample.prompt[0].value.header()["duration"] for sample in source]
    assert lengths[:12] == [0.1] * 12
    assert all(0.07 < length < 0.13 for length in lengths)
    assert len(set(lengths[12:])) > 12
    for one, other in ((source[2], source[14]), (source[2], source[26])):
        assert (one.truth, one.meta["speaker"]) == (other.truth, other.meta["speaker"])
    assert source.where(14) == source.where(2)
    assert len(SpokenDigits(folder, "test")) == 6, "who is tested is heard as recorded"


@pytest.mark.parametrize(
    ("speakers", "error", "message"),
    [
        ({"test": "dan"}, ConfigError, "among ann, bea, cid, found 'dan'"),
        ({"test": "ann", "val": "ann"}, ConfigError, "found ann for both"),
        ({"val": "cid"}, ConfigError, "found cid for both"),
    ],
)
def test_speakers_who_cannot_be_told_apart(folder: Path, speakers: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        SpokenDigits(folder, "train", speakers)


def test_a_folder_without_recordings_says_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="DIGIT_SPEAKER_NUMBER"):
        SpokenDigits(tmp_path, "train")
