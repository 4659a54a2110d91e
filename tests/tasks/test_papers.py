"""What a paper did is what `model=<its model>` gets; the tiny model keeps the settings of the studies."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmpost.config import run_config
from mmpost.objectives import kl
from mmpost.runs.configured_task import make_task

TEMPORAL, AUDIO, AERIAL = "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2-Audio-7B-Instruct", "Qwen/Qwen2-VL-2B-Instruct"

SETTINGS = [
    ("temporal_r1", TEMPORAL, "policy.loss_type", "bnpo", "grpo"),
    ("temporal_r1", TEMPORAL, "policy.kl_gradient", "plain", "corrected"),
    ("temporal_r1", TEMPORAL, "policy.kl_bound", 10.0, None),
    ("temporal_r1", TEMPORAL, "policy.beta", 0.01, 0.01),
    ("r1_aqa", AUDIO, "reward", "released", "strict"),
    ("r1_aqa", AUDIO, "channel", "first", "mean"),
    ("uav_vl_r1", AERIAL, "replay", 0.0, 0.2),
]


def value(config: Any, path: str) -> Any:
    settings: Any = make_task(config)
    for name in path.split("."):
        settings = getattr(settings, name)
    return settings


@pytest.mark.parametrize(("task", "model", "path", "of_paper", "of_tiny"), SETTINGS)
def test_a_setting_of_the_paper(task: str, model: str, path: str, of_paper: Any, of_tiny: Any) -> None:
    assert value(run_config.load([f"task={task}", f"model={model}"])[0], path) == of_paper
    assert value(run_config.load([f"task={task}"])[0], path) == of_tiny


def test_the_budget_of_pixels_and_the_epochs_of_temporal_r1() -> None:
    paper, _ = run_config.load(["task=temporal_r1", f"model={TEMPORAL}"])
    tiny, _ = run_config.load(["task=temporal_r1"])
    assert (paper.model.video_min_pixels, paper.model.video_total_pixels) == (4 * 28**2, 2048 * 28**2)
    assert paper.steps == round(15 * 12_408 / 16)
    assert (tiny.model.video_min_pixels, tiny.model.video_total_pixels, tiny.steps) == (None, None, 120)


def test_the_bound_of_the_kl_penalty() -> None:
    """EasyR1: clamp(exp(-d) - 1 + d, -10, 10), without gradient beyond."""
    logp = torch.tensor([-1.0, -8.0], requires_grad=True)
    ref = torch.tensor([-1.5, -4.0])
    value = kl.penalty(logp, ref, torch.ones(2), "k3", "plain", bound=10.0)
    expected = [float(torch.exp(torch.tensor(-0.5))) - 1 + 0.5, 10.0]
    assert value.tolist() == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(value.sum(), logp)
    assert gradient.tolist() == pytest.approx([1 - float(torch.exp(torch.tensor(-0.5))), 0.0])
    assert kl.penalty(logp, ref, torch.ones(2), "k3", "plain").tolist()[1] > 40
