"""Synthetic stars: determinism, shapes, and class-specific signals in each modality."""

from __future__ import annotations

import numpy as np
import pytest

from mmpost.data.signals import preprocess
from mmpost.data.worlds.stars import physics
from mmpost.data.worlds.stars.catalogue import CLASSES, COUNTS, Stars, class_counts
from mmpost.errors import ConfigError
from mmpost.types import Sample


def value(sample: Sample, modality: str) -> object:
    return next(p.value for p in sample.prompt if p.modality == modality).open()


def test_an_index_always_gives_the_same_star() -> None:
    stars, spectra_only = Stars("train", 64), Stars("train", 64, modalities=("spectrum",))
    _ = spectra_only[3]
    assert stars[5].uid == "train-0-5"
    assert [p.value.hash for p in stars[5].prompt] == [p.value.hash for p in Stars("train", 64)[5].prompt]
    assert stars[5].prompt[1].value.hash == spectra_only[5].prompt[0].value.hash
    assert stars[5].prompt[0].value.hash != Stars("train", 64, seed=1)[5].prompt[0].value.hash
    assert stars[5].prompt[0].value.hash != Stars("val", 64)[5].prompt[0].value.hash


def test_class_frequencies_follow_the_dataset() -> None:
    assert sum(COUNTS.values()) == 21_440
    assert class_counts(21_440) == COUNTS
    counts = class_counts(500)
    assert sum(counts.values()) == 500
    assert min(counts.values()) >= 1
    source = Stars("test", 500)
    assert {name: int((source.classes == i).sum()) for i, name in enumerate(CLASSES)} == counts
    assert [source[i].columns["label"] for i in range(5)] == source.classes[:5].tolist()
    assert source[0].truth == CLASSES[source.classes[0]]


def test_all_parts_open_in_the_format_of_the_encoders() -> None:
    for index in range(20):
        sample = Stars("val", 64)[index]
        curve, spectrum, record = (p.value for p in sample.prompt)
        curve_features = curve.open(length=200, channels=preprocess.PHOTO, catalogue=True)
        assert curve_features.shape == (200, 10)
        assert spectrum.open(grid=preprocess.GRID).shape == (3, 2575)
        numbers = record.open(names=preprocess.META, catalogue=True)
        assert numbers.shape == (34,)
        assert all(np.isfinite(x).all() for x in (curve_features, numbers))
        assert sample.replies == ()


def test_missing_parts_anomalies_and_wrong_labels_have_the_requested_rates() -> None:
    source = Stars("train", 400, missing=0.3, mislabelled=0.1, odd=0.1)
    samples = [source[i] for i in range(400)]
    assert np.mean([len(s.prompt) for s in samples]) == pytest.approx(2.1, abs=0.15)
    assert min(len(s.prompt) for s in samples) == 1
    wrong = [s for s in samples if CLASSES[int(s.columns["label"])] != s.truth]
    assert len(wrong) == sum(s.columns["wrong"] for s in samples)
    assert len(wrong) / 400 == pytest.approx(0.1, abs=0.04)
    assert np.mean([s.columns["odd"] for s in samples]) == pytest.approx(0.1, abs=0.04)


def test_observations_have_seasons_noise_and_errors() -> None:
    rng = np.random.default_rng(0)
    for name in CLASSES:
        table = physics.observed(name, 0.7, 0.5, 14.0, rng)
        nights = np.unique(np.floor(table[:, 0]))
        assert 100 < len(table) < 700
        assert (np.diff(table[:, 0]) > 0).all()
        assert np.diff(nights).max() > 40
        assert (table[:, 2] > 0).all()


def test_noise_follows_brightness() -> None:
    spread = {m: physics.observed("ROT", 3, 0.05, m, np.random.default_rng(0)) for m in (12.0, 16.0)}
    bright, faint = (np.median(t[:, 2] / t[:, 1]) for t in spread.values())
    assert bright < 0.02
    assert faint > 3 * bright


def test_light_curve_shapes_are_typical_of_their_class() -> None:
    phase = np.linspace(0, 1, 400, endpoint=False)
    rng = np.random.default_rng(0)
    dims = {name: physics.SHAPES[name](phase, phase, rng) for name in ("EW", "EA", "RRAB", "RRC")}
    minima = {
        name: int(((d > np.roll(d, 1)) & (d >= np.roll(d, -1)) & (d > 0.3 * d.max())).sum()) for name, d in dims.items()
    }
    assert minima["EW"] == 2
    assert minima["RRC"] == 1
    assert np.mean(dims["EA"] < 0.05) > 0.6  # out of eclipse most of the time
    rise = np.argmin(dims["RRAB"]) - np.argmax(dims["RRAB"])
    assert 0 < rise % 400 < 100  # a fast rise, a slow decline


def test_spectra_follow_temperature() -> None:
    rng = np.random.default_rng(0)
    spectra = {t: physics.spectrum(t, 0.0, 1.0, 0.0, 0.0, 0.0, 1e6, rng) for t in (3200, 5500, 9500)}

    def level(kelvin: int, at: float, beside: float) -> float:
        wave, flux, _ = spectra[kelvin].T
        return float(np.interp(at, wave, flux) / np.interp(beside, wave, flux))

    assert level(9500, 4861.3, 4930) < level(5500, 4861.3, 4930) - 0.2  # Balmer lines of hot stars
    assert level(5500, 3933.7, 4010) < level(9500, 3933.7, 4010)  # calcium of cool ones
    assert level(3200, 7060, 7040) < 0.7 < 0.95 < level(5500, 7060, 7040)  # oxides of the coolest
    assert level(3200, 4500, 8000) < 0.3 < level(9500, 4500, 8000)


def test_lines_move_with_velocity() -> None:
    rng = np.random.default_rng(0)
    rest, fast = (physics.spectrum(9500, 0, 1, 0, v, 0, 1e6, rng)[:, 1] for v in (0.0, 300.0))
    wave = physics.spectrum(9500, 0, 1, 0, 0, 0, 1e6, rng)[:, 0]
    near = np.abs(wave - 6562.8) < 40
    shift = wave[near][fast[near].argmin()] - wave[near][rest[near].argmin()]
    assert shift == pytest.approx(6562.8 * 300 / 299_792, abs=4)


def test_invalid_star_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="modalities must be"):
        Stars("train", 64, modalities=("sound",))
    with pytest.raises(ConfigError, match="n=3"):
        Stars("train", 3)
