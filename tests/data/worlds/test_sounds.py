"""Synthetic sounds: determinism, disjoint splits, waveforms that match the answers, one right option."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mmpost.data.sources.blanked import Blanked
from mmpost.data.worlds.sounds import DIRECTIONS, NAMES, NUMBERS, QUESTION_TYPES, RATE, Sounds
from mmpost.errors import ConfigError
from mmpost.models.builtin.qwen_audio import SECONDS, tiny_audio_tokenizer
from mmpost.rewards.choice import accuracy
from mmpost.types import Part, Reply


def test_an_index_always_gives_the_same_sample_and_splits_are_disjoint() -> None:
    sample, regenerated = Sounds("train", n=14)[3], Sounds("train", n=14)[3]
    assert sample == regenerated
    assert sample.prompt[0].value.hash == regenerated.prompt[0].value.hash
    hashes = [s.prompt[0].value.hash for split in ("train", "val", "test") for s in Sounds(split, n=70)]
    assert len(set(hashes)) == len(hashes)
    assert Sounds("train", n=14, seed=1)[3].prompt[0].value != sample.prompt[0].value


@pytest.mark.parametrize("question_type", QUESTION_TYPES)
def test_every_question_has_one_right_option_and_fits_the_tiny_model(question_type: str) -> None:
    tokenizer = tiny_audio_tokenizer()
    answers: Counter[str] = Counter()
    positions: Counter[int] = Counter()
    for sample in Sounds("val", (question_type,), n=60):
        sound, text = sample.prompt
        choices = sample.meta["choices"]
        answers[sample.truth] += 1
        positions[choices.index(sample.truth)] += 1
        assert len(set(choices)) == len(choices)
        opened = sound.value.open()
        assert opened.rate == RATE
        assert 1.0 <= len(opened.wave) / RATE <= SECONDS
        assert 0.1 < np.abs(opened.wave).max() <= 1.3
        assert len(tokenizer.encode(text.value)) <= 16
        assert accuracy(sample, Reply((Part("text", f"<answer>{sample.truth}</answer>"),))) == 1
        for token in (*choices, sample.meta["thought"].split()[0]):
            assert len(tokenizer.encode(token)) == 1, token
    assert max(answers.values()) < 45, "the answers are unbalanced"
    assert len(positions) == len(choices)
    assert max(positions.values()) < 60 * 0.75, "the position of the right option is unbalanced"


def test_events_are_separated_and_in_order() -> None:
    for index in range(40):
        source = Sounds("train", ("first", "count"), n=40)
        question_type, (question, wave) = source.question_type(index), source.question(index)
        loud = np.abs(wave) > 1e-4
        edges = np.flatnonzero(np.diff(loud.astype(int)))
        gaps = np.diff(edges)[1::2] / RATE
        assert (gaps > 0.05).sum() == len(question.events) - 1
        if question_type == "count":
            assert NUMBERS[len(question.events) - 1] == question.answer
        else:
            assert question.events[0].name == question.answer


def test_the_pitch_direction_matches_the_answer() -> None:
    for index in range(30):
        question, _ = Sounds("train", ("pitch",), n=30).question(index)
        glide = question.events[0].glide
        assert DIRECTIONS.index(question.answer) == (0 if glide > 1.5 else 1 if glide < 0.7 else 2)


def test_the_noise_has_the_requested_level() -> None:
    quiet = Sounds("test", ("which",), n=1, level=(0.0, 0.0), noise=(0.1, 0.1))[0].prompt[0].value.open()
    assert quiet.wave.std() == pytest.approx(0.1, rel=0.05)


def test_all_sound_names_occur() -> None:
    assert {name for s in Sounds("train", ("which",), n=100) for name in s.meta["choices"]} == set(NAMES)


def test_an_unknown_question_type_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"some of which, first.*found smell"):
        Sounds("train", ("smell",))


def test_blanked_samples_change_only_the_audio() -> None:
    source = Sounds("test", ("count",), n=4)
    for sample, silent in zip(source, Blanked(source), strict=True):
        assert (silent.uid, silent.truth) == (f"{sample.uid}/blank", sample.truth)
        assert silent.prompt[1] == sample.prompt[1]
        original, blanked = sample.prompt[0].value.open(), silent.prompt[0].value.open()
        assert len(blanked.wave) == len(original.wave)
        assert not blanked.wave.any()
