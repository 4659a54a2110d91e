"""Built-in sounds: deterministic, apart by split, heard as they are said, with one right option."""

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


def test_the_same_index_is_the_same_sample_and_splits_are_apart() -> None:
    one, again = Sounds("train", n=14)[3], Sounds("train", n=14)[3]
    assert one == again
    assert one.prompt[0].value.hash == again.prompt[0].value.hash
    hashes = [s.prompt[0].value.hash for split in ("train", "val", "test") for s in Sounds(split, n=70)]
    assert len(set(hashes)) == len(hashes)
    assert Sounds("train", n=14, seed=1)[3].prompt[0].value != one.prompt[0].value


@pytest.mark.parametrize("kind", QUESTION_TYPES)
def test_every_question_has_one_right_option_and_fits_the_tiny_model(kind: str) -> None:
    tokenizer = tiny_audio_tokenizer()
    answers: Counter[str] = Counter()
    places: Counter[int] = Counter()
    for sample in Sounds("val", (kind,), n=60):
        sound, text = sample.prompt
        choices = sample.meta["choices"]
        answers[sample.truth] += 1
        places[choices.index(sample.truth)] += 1
        assert len(set(choices)) == len(choices)
        opened = sound.value.open()
        assert opened.rate == RATE
        assert 1.0 <= len(opened.wave) / RATE <= SECONDS
        assert 0.1 < np.abs(opened.wave).max() <= 1.3
        assert len(tokenizer.encode(text.value)) <= 16
        assert accuracy(sample, Reply((Part("text", f"<answer>{sample.truth}</answer>"),))) == 1
        for token in (*choices, sample.meta["thought"].split()[0]):
            assert len(tokenizer.encode(token)) == 1, token
    assert max(answers.values()) < 45, "one answer is nearly always right"
    assert len(places) == len(choices)
    assert max(places.values()) < 60 * 0.75, "the place of an option tells"


def test_events_stand_apart_in_their_order() -> None:
    for index in range(40):
        source = Sounds("train", ("first", "count"), n=40)
        question_type, (asked, wave) = source.question_type(index), source.question(index)
        loud = np.abs(wave) > 1e-4
        edges = np.flatnonzero(np.diff(loud.astype(int)))
        gaps = np.diff(edges)[1::2] / RATE
        assert (gaps > 0.05).sum() == len(asked.events) - 1
        if question_type == "count":
            assert NUMBERS[len(asked.events) - 1] == asked.answer
        else:
            assert asked.events[0].name == asked.answer


def test_the_pitch_goes_where_the_answer_says() -> None:
    for index in range(30):
        asked, _ = Sounds("train", ("pitch",), n=30).question(index)
        glide = asked.events[0].glide
        assert DIRECTIONS.index(asked.answer) == (0 if glide > 1.5 else 1 if glide < 0.7 else 2)


def test_noise_is_as_loud_as_it_is_said_to_be() -> None:
    quiet = Sounds("test", ("which",), n=1, level=(0.0, 0.0), noise=(0.1, 0.1))[0].prompt[0].value.open()
    assert quiet.wave.std() == pytest.approx(0.1, rel=0.05)


def test_all_names_are_heard() -> None:
    assert {name for s in Sounds("train", ("which",), n=100) for name in s.meta["choices"]} == set(NAMES)


def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"some of which, first.*found smell"):
        Sounds("train", ("smell",))


def test_blanked_sounds_keep_all_but_the_sound() -> None:
    source = Sounds("test", ("count",), n=4)
    for sample, silent in zip(source, Blanked(source), strict=True):
        assert (silent.uid, silent.truth) == (f"{sample.uid}/blank", sample.truth)
        assert silent.prompt[1] == sample.prompt[1]
        was, now = sample.prompt[0].value.open(), silent.prompt[0].value.open()
        assert len(now.wave) == len(was.wave)
        assert not now.wave.any()
