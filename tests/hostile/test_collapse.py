"""A reward that falls while the entropy collapses is said on the screen, once, and nothing else is."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mmpost.config.settings import LogSettings
from mmpost.listeners import CollapseWarning
from mmpost.listeners.base import Listeners
from mmpost.listeners.files import JsonlMetrics
from mmpost.listeners.from_settings import listeners_of

# Lines of metrics.jsonl of r1_aqa on tiny-audio: reward/total and entropy of 60 steps with ten times the learning rate.
RECORDED_REWARD = (
    *(1.219, 1.242, 1.203, 1.219, 1.375, 1.258, 1.016, 1.312, 1.258, 1.18, 1.312, 1.211, 1.18, 1.07, 1.234),
    *(1.25, 1.336, 1.227, 1.273, 1.281, 1.156, 1.141, 1.234, 1.227, 1.219, 1.125, 1.312, 1.25, 1.195, 1.164),
    *(1.117, 1.195, 1.258, 1.359, 1.062, 1.094, 1.219, 1.289, 1.336, 1.109, 1.109, 1.078, 1.164, 1.258, 1.273),
    *(1.211, 1.133, 1.07, 1.094, 1.195, 1.352, 1.102, 1.211, 1.156, 1.242, 1.188, 1.273, 1.18, 1.289, 1.188),
)
RECORDED_ENTROPY = (
    *(0.383, 0.353, 0.306, 0.337, 0.232, 0.248, 1.293, 0.305, 0.245, 0.322, 0.223, 0.253, 0.367, 0.284, 0.306),
    *(0.289, 0.262, 0.341, 0.241, 0.196, 0.284, 0.246, 0.241, 0.296, 0.268, 0.17, 0.154, 0.188, 0.149, 0.083),
    *(0.134, 0.085, 0.086, 0.152, 0.142, 0.191, 0.119, 0.184, 0.182, 0.177, 0.162, 0.159, 0.264, 0.253, 0.192),
    *(0.159, 0.119, 0.092, 0.103, 0.114, 0.133, 0.17, 0.133, 0.15, 0.151, 0.167, 0.215, 0.179, 0.234, 0.168),
)


def falling(start: float, end: float, n: int = 40) -> list[float]:
    return [start + (end - start) * i / (n - 1) for i in range(n)]


def said(
    rewards: Sequence[float], entropies: Sequence[float | None], capsys: pytest.CaptureFixture[str], stage: str = "rl"
) -> list[str]:
    listener = CollapseWarning()
    for step, (reward, entropy) in enumerate(zip(rewards, entropies, strict=True), 1):
        line: dict[str, float | int | str] = {"step": step, "stage": stage, "rollout": step, "reward/total": reward}
        listener.on_metrics(line if entropy is None else {**line, "entropy": entropy})
        listener.on_metrics({"step": step, "eval/f1": 0.5})
    return capsys.readouterr().err.splitlines()


def test_a_collapse_is_said_once_with_its_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = said(falling(1.4, 0.6), falling(0.42, 0.07), capsys)
    assert line.startswith("mmpost: [rl] step 3")
    assert "the reward falls (1.31 to " in line
    assert "the entropy collapses (0.38 to 0.1" in line
    assert "lower optim.lr" in line


def test_steps_without_gradient_have_no_entropy(capsys: pytest.CaptureFixture[str]) -> None:
    entropies = [e if i % 3 else None for i, e in enumerate(falling(0.42, 0.07))]
    assert len(said(falling(1.4, 0.6), entropies, capsys)) == 1
    assert said(falling(1.4, 0.6), [None] * 40, capsys) == []


def test_a_recorded_run_whose_reward_then_falls(capsys: pytest.CaptureFixture[str]) -> None:
    """Its entropy collapses, while its reward stays within its noise: nothing to say, unless it also falls."""
    assert said(RECORDED_REWARD, RECORDED_ENTROPY, capsys) == []
    fallen = [r - 0.01 * max(0, i - 20) for i, r in enumerate(RECORDED_REWARD)]
    (line,) = said(fallen, RECORDED_ENTROPY, capsys)
    assert "the reward falls (1.24 to 1.03) while the entropy collapses (0.402 to 0.155)" in line


def lines(rewards: Sequence[float], entropies: Sequence[float]) -> list[dict[str, float | int | str]]:
    return [
        {"step": step, "stage": "rl", "rollout": step, "reward/total": reward, "entropy": entropy}
        for step, (reward, entropy) in enumerate(zip(rewards, entropies, strict=True), 1)
    ]


@pytest.mark.parametrize("killed_after", [5, 15, 25, 35])
def test_a_resumed_run_goes_on_from_its_earlier_steps(
    killed_after: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It repeats the last two steps, since the checkpoint is older than the kill."""
    metrics = lines(falling(1.4, 0.6), falling(0.42, 0.07))
    expected = said(falling(1.4, 0.6), falling(0.42, 0.07), capsys)
    for part in (metrics[:killed_after], metrics[killed_after - 2 :]):
        listeners = Listeners([JsonlMetrics(), CollapseWarning()])
        listeners.on_start(tmp_path, {}, len(metrics))
        for line in part:
            listeners.on_metrics(line)
        listeners.on_end({})
    assert capsys.readouterr().err.splitlines() == expected


def healthy() -> Iterator[tuple[list[float], list[float]]]:
    yield falling(0.6, 1.4), falling(0.42, 0.07)  # sharper because it is better
    yield falling(1.4, 0.6), falling(0.42, 0.3)  # worse, but not collapsed
    yield [1.0] * 40, falling(0.42, 0.0)
    yield falling(1.4, 0.6, 19), falling(0.42, 0.07, 19)  # too early to tell


@pytest.mark.parametrize(("rewards", "entropies"), list(healthy()))
def test_nothing_is_said_of_other_runs(
    rewards: list[float], entropies: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(rewards, entropies, capsys) == []


def test_noise_is_no_fall(capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(0)
    alarms = sum(len(said([rng.gauss(1, 0.1) for _ in range(40)], falling(0.42, 0.07), capsys)) for _ in range(100))
    assert alarms <= 5


def test_every_run_listens() -> None:
    assert any(isinstance(one, CollapseWarning) for one in listeners_of(LogSettings(progress=False), None))
