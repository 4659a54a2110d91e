"""Intervals over seeds and samples: closed forms, simulated coverage, and adjusted p-values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pytest
from scipy import stats

from mmpost.metrics.intervals import (
    GROUPS,
    Estimate,
    Measured,
    Summary,
    holm,
    power,
    rank_correlation,
    replicates,
    stack,
)
from mmpost.types import Reply, Sample


def mean_metric(samples: Sequence[Sample]) -> Mapping[str, float]:
    return {"mean": sum(s.replies[0].scores["x"] for s in samples) / len(samples)}


def samples_with_scores(values: Iterable[float]) -> list[Sample]:
    return [Sample(str(i), (), (Reply((), scores={"x": float(v)}),)) for i, v in enumerate(values)]


def measure(summary: Summary, seeds: Sequence[Sequence[Sample]]) -> dict[str, Measured]:
    return stack([replicates(summary, samples) for samples in seeds])


def t_test(values: Sequence[float] | np.ndarray) -> float:
    """p-value of Student's t test against 0."""
    return float(2 * stats.t.sf(abs(np.mean(values)) / stats.sem(values), len(values) - 1))


def test_one_group_per_sample_is_the_standard_error_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(size=50)
    estimate = measure(mean_metric, [samples_with_scores(values)])["mean"].estimate()
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.parts == [pytest.approx((values.std(ddof=1) / math.sqrt(50), 49))]
    assert math.isnan(estimate.sd)
    assert estimate.interval() == pytest.approx(stats.t.interval(0.95, 49, values.mean(), stats.sem(values)))
    assert estimate.p == pytest.approx(t_test(values))


def test_seeds_and_shared_samples_add_up() -> None:
    common = np.random.default_rng(1).normal(size=GROUPS * 8)
    effects = np.array([2.0, 0.0, -2.5])
    estimate = measure(mean_metric, [samples_with_scores(common + shift) for shift in effects])["mean"].estimate()
    groups = common.reshape(8, GROUPS).mean(axis=0)
    samples = groups.var(ddof=1) / GROUPS
    assert estimate.sample_variance == pytest.approx(samples)
    seeds = effects.var(ddof=1) / 3
    df = (seeds + samples) ** 2 / (seeds**2 / 2 + samples**2 / (GROUPS - 1))
    assert estimate.parts[0] == pytest.approx((math.sqrt(seeds + samples), df))


def test_no_interval_is_narrower_than_that_of_the_seeds() -> None:
    seeds = (4.0, 0.0, -3.0)
    estimate = Estimate(seeds, 4.0, 63.0)
    assert estimate.parts[0][0] > estimate.parts[1][0]
    assert estimate.interval() == pytest.approx(stats.t.interval(0.95, 2, np.mean(seeds), stats.sem(seeds)))
    assert Estimate((14.0, 10.0, 7.0), 4.0, 63.0).interval()[0] > 0
    assert Estimate((14.0, 10.0, 7.0), 4.0, 63.0).p == pytest.approx(t_test([14, 10, 7]))
    wide = Estimate(seeds, 400.0, 63.0)
    assert np.diff(wide.interval()) > np.diff(estimate.interval())
    assert wide.p > estimate.p


def test_without_variance_over_samples_it_is_the_t_interval_of_the_seeds() -> None:
    seeds = [3.0, 5.0, 10.0]
    estimate = measure(mean_metric, [samples_with_scores([s] * 20) for s in seeds])["mean"].estimate()
    assert estimate.interval(0.9) == pytest.approx(stats.t.interval(0.9, 2, 6.0, stats.sem(seeds)))
    assert estimate.p == pytest.approx(t_test(seeds))


def test_differences_are_paired_by_seed_and_sample() -> None:
    rng = np.random.default_rng(2)
    common, seeds = 5 * rng.normal(size=100), rng.normal(size=4)
    first = measure(mean_metric, [samples_with_scores(common + s) for s in seeds])["mean"]
    second = measure(mean_metric, [samples_with_scores(common + s - 1.5) for s in seeds])["mean"]
    assert (first - second).estimate().interval() == pytest.approx((1.5, 1.5))
    assert first.estimate().parts[0][0] > 0.5


def test_a_mean_without_any_variance_is_certain() -> None:
    assert Estimate((1.0, 1.0), 0.0, 63.0).p == 0
    assert Estimate((0.0, 0.0), 0.0, 63.0).p == 1
    assert Estimate((1.0, 1.0), 0.0, 63.0).interval() == (1, 1)
    assert Estimate((1.0, 1.0), 0.0, 63.0).as_dict()["df"] == 1e6


def test_a_metric_that_a_group_alone_has_and_one_that_a_seed_lacks() -> None:
    def with_rare(samples: Sequence[Sample]) -> Mapping[str, float]:
        rare = [s.replies[0].scores["x"] for s in samples if s.uid == "0"]
        metrics = {"mean": 1.0, **({"rare": rare[0]} if rare else {})}
        return metrics if samples[-1].replies[0].scores["x"] != 9 else {"mean": 1.0}

    measured = measure(with_rare, [samples_with_scores([4, 2, 3])])
    assert measured["rare"].estimate().interval() == pytest.approx((4, 4))
    assert set(measure(with_rare, [samples_with_scores([4, 2, 3]), samples_with_scores([4, 2, 9])])) == {"mean"}


def test_groups_leave_out_every_sample_once() -> None:
    for n in (2, 63, 64, 65, 200):
        samples = samples_with_scores(range(n))
        lengths = replicates(lambda remaining: {"n": len(remaining)}, samples)["n"]
        assert lengths[0] == n
        assert len(lengths) == min(n, GROUPS) + 1
        assert sum(n - length for length in lengths[1:]) == n
        assert max(lengths[1:]) - min(lengths[1:]) <= 1
        sums = replicates(lambda remaining: {"sum": sum(s.replies[0].scores["x"] for s in remaining)}, samples)["sum"]
        assert sum(sums[0] - value for value in sums[1:]) == sums[0]
    assert replicates(mean_metric, samples_with_scores([7.0])) == {"mean": [7.0]}
    assert measure(mean_metric, [samples_with_scores([7.0])])["mean"].estimate().interval() == (7, 7)


@pytest.mark.parametrize(("seeds", "wanted"), [(3, 0.92), (5, 0.93), (10, 0.93)])
def test_intervals_cover_what_they_say(seeds: int, wanted: float, capsys: pytest.CaptureFixture[str]) -> None:
    """Seeds that differ by 0.5 to 13 points, samples that add a standard error of 2, shared by all seeds.

    The bootstrap over seeds that these intervals replace covers 77 to 94 % with three seeds.
    """
    rng, trials = np.random.default_rng(seeds), 2000
    for sd in (0.5, 2.0, 4.0, 8.0, 13.0):
        effects = rng.normal(scale=sd, size=(trials, seeds))
        groups = rng.normal(scale=2 * math.sqrt(GROUPS), size=(trials, GROUPS))
        noise = groups.mean(axis=1)
        without = (GROUPS * noise[:, None] - groups) / (GROUPS - 1)
        covered, width = 0, 0.0
        for i in range(trials):
            low, high = Measured(effects[i] + noise[i], effects[i][:, None] + without[i]).estimate().interval()
            covered += low <= 0 <= high
            width += high - low
        with capsys.disabled():
            print(f"\n{seeds} seeds, SD {sd:4.1f}: covers {covered / trials:.1%}, width {width / trials:.1f}", end="")
        assert covered / trials >= wanted


def test_coverage_with_samples_that_seeds_disagree_about() -> None:
    """The path that studies take: differences of an F1-like ratio, from the samples of each seed."""

    def ratio(samples: Sequence[Sample]) -> Mapping[str, float]:
        hits = sum(s.replies[0].scores["x"] for s in samples)
        return {"ratio": 200 * hits / (hits + len(samples))}

    rng, intervals = np.random.default_rng(4), []
    for _ in range(300):
        difficulty, arms = rng.normal(size=200), []
        for shift in (0.0, 0.5):
            scores = [(difficulty + shift + rng.normal() * 0.2 + rng.normal(size=200) > 0) * 1.0 for _ in range(3)]
            arms.append(measure(ratio, [samples_with_scores(s) for s in scores])["ratio"])
        intervals.append((arms[1] - arms[0]).estimate().interval())
    shares = [stats.norm.cdf(shift / math.sqrt(1 + 1 + 0.2**2)) for shift in (0.0, 0.5)]  # of hits, in the long run
    gap = 200 * (shares[1] / (1 + shares[1]) - shares[0] / (1 + shares[0]))
    assert np.mean([low <= gap <= high for low, high in intervals]) >= 0.92


def test_holm_adjusts_as_published() -> None:
    # statsmodels' multipletests of these values
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_power_is_what_simulation_gives() -> None:
    """Five seeds, an SD of 2 and 2,048 samples (a standard error of about 1): a gap of 4 is seen in 80 %."""
    assert power(4.0, 2.0, 1.0, 5) == pytest.approx(0.80, abs=0.02)
    rng, trials, seen = np.random.default_rng(5), 4000, 0
    for _ in range(trials):
        groups = rng.normal(scale=math.sqrt(GROUPS), size=GROUPS)
        variance = float(groups.var(ddof=1)) / GROUPS
        seeds = 4 + rng.normal(scale=2, size=5) + groups.mean()
        seen += Estimate(tuple(seeds.tolist()), variance, GROUPS - 1.0).p < 0.05
    assert power(4.0, 2.0, 1.0, 5) == pytest.approx(seen / trials, abs=0.03)
    assert power(400.0, 2.0, 1.0, 5) == power(1.0, 0.0, 0.0, 5) == 1
    assert power(0.0, 2.0, 1.0, 5) == pytest.approx(0.05, abs=1e-3)


def test_rank_correlation_of_each_replicate() -> None:
    x, y = [[1.0, 1.0], [2.0, 3.0], [9.0, 2.0]], [[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]]
    assert rank_correlation(x, y) == pytest.approx([-1.0, 0.5])
    assert rank_correlation([[1.0], [1.0]], [[1.0], [2.0]]) == [0.0]
