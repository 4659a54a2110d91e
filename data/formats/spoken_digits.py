"""Real spoken digits as multiple choice: a folder of DIGIT_SPEAKER_NUMBER.wav (Free Spoken Digit Dataset)."""

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
PACES = (0.8, 1.25)
"""How fast a recording is played in training, as a share of its own pace."""
_NAME = re.compile(r"([0-9])_([a-z]+)_([0-9]+)\.wav")


class Spoken(Indexed):
    """Which digit is said? Splits go by speaker: who is heard in test or val is heard nowhere else.

    `speakers` names those of "test" and "val"; without one for test it is the last by name, without one for val that
    split is empty. The options are `options` digits drawn for each recording, the right one among them. In train, each
    recording comes `paces` times, first as it is and then played faster or slower, and so higher or lower: few speakers
    stand for many (Ko et al. 2015, speed perturbation). Raises DataError for a folder without recordings, ConfigError
    for a speaker who is not there.
    """

    name = "spoken digits"

    def __init__(
        self,
        folder: str | Path,
        split: Split,
        speakers: Mapping[str, str] = {},
        options: int = 4,
        template: str = TEMPLATE,
        paces: int = 8,
    ) -> None:
        found = sorted(
            ((int(m[3]), m[1], m[2], file) for file in Path(folder).glob("*.wav") if (m := _NAME.fullmatch(file.name))),
            key=lambda item: item[:3],
        )
        if not found:
            raise DataError(
                f"wanted recordings named DIGIT_SPEAKER_NUMBER.wav in {folder}, found none; correct task.speech"
            )
        known = sorted({speaker for _, _, speaker, _ in found})
        held = {"test": speakers.get("test") or known[-1], "val": speakers.get("val") or ""}
        for who in filter(None, held.values()):
            if who not in known:
                raise ConfigError(f"wanted a speaker among {', '.join(known)}, found {who!r}; correct the name")
        if held["test"] == held["val"]:
            raise ConfigError(f"wanted two speakers for test and val, found {held['test']} for both; name another")
        wanted = {*known} - {*held.values()} if split == "train" else {held[split]}
        if split == "train" and not wanted:
            raise ConfigError(f"wanted a speaker to train on besides {', '.join(known)}; add recordings")
        self.files = [(int(digit), speaker, file) for _, digit, speaker, file in found if speaker in wanted]
        self.split, self.options, self.template = split, options, template
        self.paces = paces if split == "train" else 1

    def __len__(self) -> int:
        return len(self.files) * self.paces

    def where(self, index: int) -> str:
        """The file of a sample, as messages name it."""
        return self.files[index % len(self.files)][2].name

    def sample(self, index: int) -> Sample:
        pace, at = divmod(index, len(self.files))
        digit, speaker, file = self.files[at]
        uid = f"{file.stem}~{pace}" if pace else file.stem
        rng = random.Random(uid)
        sound = media(file, "audio")
        if pace:
            opened = sound.open()
            # Told to have another rate, it is resampled as well as any sound is.
            sound = media((opened.wave, round(opened.rate * rng.uniform(*PACES))), "audio")
        choices = [WORDS[digit], *rng.sample([w for w in WORDS if w != WORDS[digit]], self.options - 1)]
        rng.shuffle(choices)
        meta = {"kind": "speech", "speaker": speaker, "thought": WORDS[digit]}
        return choice_sample(uid, sound, "which digit?", choices, WORDS[digit], self.template, meta)
