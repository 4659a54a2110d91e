"""Spoken digits as multiple choice: a folder of DIGIT_SPEAKER_NUMBER.wav (Free Spoken Digit Dataset)."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from pathlib import Path

from mmpost.data.formats.choices import TEMPLATE, choice_sample
from mmpost.data.media.media import media
from mmpost.data.sources.base import Indexed
from mmpost.errors import ConfigError, DataError
from mmpost.types import Sample, Split

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEEDS = (0.8, 1.25)
"""Range of playback speeds in training, relative to the recording."""
_NAME = re.compile(r"([0-9])_([a-z]+)_([0-9]+)\.wav")


class SpokenDigits(Indexed):
    """Which digit is spoken? Splits are by speaker: the speakers of test and val occur in no other split.

    `speakers` names those of "test" and "val"; by default test is the last speaker by name, and val is empty. Each
    recording has `options` digits to choose from, including the correct one. In train, each recording occurs `speeds`
    times, first unchanged and then faster or slower, which also shifts its pitch (speed perturbation, Ko et al. 2015):
    there are few speakers. Raises DataError for a folder without recordings, ConfigError for an unknown speaker.
    """

    name = "spoken digits"

    def __init__(
        self,
        folder: str | Path,
        split: Split,
        speakers: Mapping[str, str] = {},
        options: int = 4,
        template: str = TEMPLATE,
        speeds: int = 8,
    ) -> None:
        recordings = sorted(
            ((int(m[3]), m[1], m[2], file) for file in Path(folder).glob("*.wav") if (m := _NAME.fullmatch(file.name))),
            key=lambda item: item[:3],
        )
        if not recordings:
            raise DataError(
                f"wanted recordings named DIGIT_SPEAKER_NUMBER.wav in {folder}, found none; correct task.speech"
            )
        known = sorted({speaker for _, _, speaker, _ in recordings})
        held_out = {"test": speakers.get("test") or known[-1], "val": speakers.get("val") or ""}
        for speaker in filter(None, held_out.values()):
            if speaker not in known:
                raise ConfigError(f"wanted a speaker among {', '.join(known)}, found {speaker!r}; correct the name")
        if held_out["test"] == held_out["val"]:
            raise ConfigError(f"wanted two speakers for test and val, found {held_out['test']} for both; name another")
        included = {*known} - {*held_out.values()} if split == "train" else {held_out[split]}
        if split == "train" and not included:
            raise ConfigError(f"wanted a speaker to train on besides {', '.join(known)}; add recordings")
        self.files = [(int(digit), speaker, file) for _, digit, speaker, file in recordings if speaker in included]
        self.split, self.options, self.template = split, options, template
        self.speeds = speeds if split == "train" else 1

    def __len__(self) -> int:
        return len(self.files) * self.speeds

    def where(self, index: int) -> str:
        """The file of a sample, for messages."""
        return self.files[index % len(self.files)][2].name

    def sample(self, index: int) -> Sample:
        repeat, number = divmod(index, len(self.files))
        digit, speaker, file = self.files[number]
        uid = f"{file.stem}~{repeat}" if repeat else file.stem
        rng = random.Random(uid)
        audio = media(file, "audio")
        if repeat:
            recording = audio.open()
            # A different nominal rate changes the speed: the loader resamples it like any other audio.
            audio = media((recording.wave, round(recording.rate * rng.uniform(*SPEEDS))), "audio")
        choices = [WORDS[digit], *rng.sample([w for w in WORDS if w != WORDS[digit]], self.options - 1)]
        rng.shuffle(choices)
        meta = {"kind": "speech", "speaker": speaker, "thought": WORDS[digit]}
        return choice_sample(uid, audio, "which digit?", choices, WORDS[digit], self.template, meta)
