"""The preprocessing of AstroM3 against its formulas: order, constants, shapes, and division by zero."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mmpost.data.media.media import media
from mmpost.data.signals import preprocess
from mmpost.data.signals.points import Points
from mmpost.errors import DataError


def curve(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.permutation(np.arange(n) * 2.0), rng.normal(5, 2, n), rng.uniform(0.1, 0.2, n)])


def test_the_published_preprocessing_example() -> None:
    flux = np.array([1.0, 2, 3, 4, 10])
    processed = preprocess.light_curve(np.column_stack([np.arange(5.0), flux, np.ones(5)]))
    assert processed[:5, 1].tolist() == [-3, -2, -1, 0, 6]
    assert processed[0, 3] == 0.0
    assert processed.shape == (200, 6)


def test_a_short_curve() -> None:
    raw = curve(50)
    processed = preprocess.light_curve(np.vstack([raw, raw[:7]]), extra=(1.5, 2.5, 3.5, 4.5))
    x = raw[np.argsort(raw[:, 0])]
    mad = float(np.asarray(stats.median_abs_deviation(x[:, 1])))
    assert processed.shape == (200, 10)
    assert processed[:50, 0] == pytest.approx((x[:, 0] - x[0, 0]) / (x[-1, 0] - x[0, 0]), abs=1e-6)
    assert processed[:50, 1] == pytest.approx((x[:, 1] - x[:, 1].mean()) / mad, abs=1e-5)
    assert processed[:50, 2] == pytest.approx(x[:, 2] / mad, abs=1e-6)
    # Constant channels also cover the padding.
    assert np.array_equal(processed[:, 3:7], np.tile(np.array([1.5, 2.5, 3.5, 4.5], np.float32), (200, 1)))
    assert processed[:, 7] == pytest.approx(np.log10(mad), abs=1e-6)
    assert processed[:, 8] == pytest.approx(98 / 365, abs=1e-6)
    assert processed[:, 9].tolist() == [1.0] * 50 + [0.0] * 150
    assert not processed[50:, :3].any()


def test_windows_of_a_long_curve_keep_the_times_of_the_full_curve() -> None:
    raw = curve(301)
    middle, last, beyond = (preprocess.light_curve(raw, start=s) for s in (None, 101, 500))
    assert middle[0, 0] == pytest.approx(50 / 300)
    assert last[-1, 0] == 1.0
    assert np.array_equal(last, beyond)
    assert middle[:, -1].all()


def test_a_flat_curve_and_a_single_epoch_stay_finite() -> None:
    flat = preprocess.light_curve(np.column_stack([np.arange(9.0), np.full(9, 3.0), np.full(9, 0.5)]))
    single = preprocess.light_curve(np.array([[5.0, 2.0, 0.1]]))
    assert np.isfinite(flat).all()
    assert np.isfinite(single).all()
    assert flat[0, 1:4].tolist() == [0.0, 0.5, 0.0]
    assert single[0].tolist() == pytest.approx([0, 0, 0.1, 0, 0, 1])


def test_folding_sorts_by_phase() -> None:
    raw = curve(60)
    processed = preprocess.light_curve(raw, period=0.7)
    assert processed[:60, 0] == pytest.approx(np.sort(np.mod(raw[:, 0], 0.7) / 0.7), abs=1e-6)
    assert processed[0, -2] == pytest.approx(118 / 365)
    with pytest.raises(DataError, match="positive period"):
        preprocess.light_curve(raw, period=0.0)


def test_a_spectrum_on_the_grid() -> None:
    rng = np.random.default_rng(1)
    wave = np.sort(rng.uniform(3700, 9100, 900))
    raw = np.column_stack([wave, rng.normal(3, 1, 900), rng.uniform(0.1, 0.3, 900)])
    processed = preprocess.spectrum(raw)
    grid = np.arange(3850, 9000, 2)
    flux = np.interp(grid, wave, raw[:, 1])
    mad = stats.median_abs_deviation(flux[flux != 0])
    assert processed.shape == (3, 2575)
    assert grid[-1] == 8998
    assert processed[0] == pytest.approx((flux - flux.mean()) / mad, abs=1e-5)
    assert processed[1] == pytest.approx(np.interp(grid, wave, raw[:, 2]) / mad, abs=1e-5)
    assert processed[2] == pytest.approx(np.log10(mad), abs=1e-6)
    assert np.array_equal(processed, preprocess.spectrum(raw[::-1].copy()))


def test_the_mad_of_a_spectrum_excludes_zeros() -> None:
    grid = np.arange(3850.0, 9000, 2)
    flux = np.where(np.arange(len(grid)) % 2, 0.0, np.arange(len(grid), dtype=float) + 1)
    processed = preprocess.spectrum(np.column_stack([grid, flux, flux]))
    assert processed[2, 0] == pytest.approx(np.log10(stats.median_abs_deviation(flux[flux != 0])), abs=1e-6)
    assert np.isfinite(preprocess.spectrum(np.column_stack([grid, np.zeros((len(grid), 2))]))).all()


def test_the_record() -> None:
    raw = {"j_mag": 12.0, "j_k": 0.5, "e_j_mag": 0.1, "parallax": 2.0, "l": 180.0, "b": 30.0, "period": 10.0}
    processed = preprocess.record(raw)
    assert processed["j_mag"] == pytest.approx(12 - 10 + 5 * np.log10(2.0))
    assert (processed["j_k"], processed["e_j_mag"], processed["parallax"]) == (0.5, 0.1, 2.0)
    assert (processed["l"], processed["b"], processed["period"]) == pytest.approx((-1.0, 0.5, 1.0))
    for parallax in (0.0, -3.0):
        assert preprocess.record({"j_mag": 12.0, "parallax": parallax})["j_mag"] == 2.0
    with pytest.raises(DataError, match="positive period"):
        preprocess.record({"period": 0.0})
    assert (len(preprocess.META), len(preprocess.PHOTO), len(preprocess.ABSOLUTE)) == (34, 4, 11)


def test_media_open_in_the_format_of_the_encoders() -> None:
    about = {"amplitude": 0.4, "period": 100.0}
    processed = media(Points(curve(30), about), "light_curve").open(
        length=64, channels=("period", "amplitude"), catalogue=True
    )
    assert processed.shape == (64, 8)
    assert processed[0, 3:5] == pytest.approx([2.0, 0.4])
    with pytest.raises(DataError, match="Wanted lksl_statistic beside the points"):
        media(Points(curve(30), about), "light_curve").open(length=64, channels=("lksl_statistic",))
    assert media(curve(30), "spectrum").open(grid=(0.0, 60.0, 2.0)).shape == (3, 30)


def test_water_filling() -> None:
    counts = [6168, 4590, 2916, 2351, 1976, 1839, 796, 281, 268, 255]
    assert preprocess.water_fill((10, 6, 2), 9) == 3
    assert preprocess.water_fill((10, 6, 2), 18) == 10
    assert sum(min(c, 4) for c in (10, 6, 2)) == 10
    # Caps and totals of the released subsets: a half, a quarter and a tenth (card 3.4).
    for cap, total in ((1518, 10_708), (649, 5347), (209, 2090)):
        assert sum(min(c, cap) for c in counts) == total
        assert preprocess.water_fill(counts, total) == cap


def test_capped_labels() -> None:
    labels = [0] * 10 + [1] * 6 + [2] * 2
    chosen = preprocess.class_balanced_subset(labels, 9, seed=3)
    assert [sum(labels[i] == c for i in chosen) for c in range(3)] == [3, 3, 2]
    assert chosen == sorted(set(chosen)) == preprocess.class_balanced_subset(labels, 9, seed=3)
    assert chosen != preprocess.class_balanced_subset(labels, 9, seed=4)
    assert preprocess.class_balanced_subset(labels, 18, seed=0) == list(range(18))
