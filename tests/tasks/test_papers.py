"""What a paper did is what `model=<its model>` gets; the tiny model keeps the settings of the studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpost.config import run_config
from mmpost.objectives import kl
from mmpost.rewards import box
from mmpost.runs.configured_task import make_task
from mmpost.training.trainer import allocate_steps
from mmpost.transforms.score import Score

TEMPORAL, AUDIO, AERIAL = "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2-Audio-7B-Instruct", "Qwen/Qwen2-VL-2B-Instruct"
GROUNDING, REASONING = "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2-VL-2B-Instruct"

SETTINGS = [
    ("temporal_r1", TEMPORAL, "policy.loss_type", "bnpo", "grpo"),
    ("temporal_r1", TEMPORAL, "policy.kl_gradient", "plain", "corrected"),
    ("temporal_r1", TEMPORAL, "policy.kl_bound", 10.0, None),
    ("temporal_r1", TEMPORAL, "policy.beta", 0.01, 0.01),
    ("r1_aqa", AUDIO, "reward", "released", "strict"),
    ("r1_aqa", AUDIO, "channel", "first", "mean"),
    ("uav_vl_r1", AERIAL, "replay", 0.0, 0.2),
    ("visurf", GROUNDING, "inclusive_iou", True, False),
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


def test_the_box_accuracy_of_visurf_is_the_released_one_in_training_and_evaluation() -> None:
    for model, function in ((GROUNDING, box.box_accuracy_inclusive), ("tiny", box.box_accuracy)):
        task = make_task(run_config.load(["task=visurf", f"model={model}"])[0])
        steps = [t for part in (*task.stages(), *task.benches("test")) for t in part.transforms]
        scores = [step for step in steps if isinstance(step, Score)]
        assert len(scores) == 3
        for score in scores:
            others = box.REWARDS if set(score.rewards) == set(box.REWARDS) else box.detection
            assert score.rewards == {**others, "box_accuracy": function}


@pytest.mark.parametrize(
    ("config", "family", "sft_steps", "rl_steps", "reuse"),
    [
        # Samples of the paper: 35k, 4.5k and 60k, of which 1.6k for SFT in batches of 16. GRPO in batches of 14
        # prompts: one epoch of the others, for structure perception five of all.
        ("task=reason_rft", "counting", 1600 / 16, (35_000 - 1600) / 14, False),
        ("config=reason_rft_structure", "structure", 1600 / 16, 5 * 4500 / 14, True),
        ("config=reason_rft_transformation", "transformation", 1600 / 16, (60_000 - 1600) / 14, False),
    ],
)
def test_the_three_tasks_of_reason_rft(
    config: str, family: str, sft_steps: float, rl_steps: float, reuse: bool, tmp_path: Path
) -> None:
    rows = [{"id": str(i), "image": ["a.png"] * 2, "problem": "?", "solution": "3"} for i in range(1602)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    paper, _ = run_config.load([config, f"model={REASONING}", f"data.train={tmp_path / 'rows.json'}"])
    task = make_task(paper)
    stages = list(task.stages())
    steps = allocate_steps(paper.steps, [(stage.name, stage.fraction) for stage in stages])
    assert steps == {"sft": round(sft_steps), "rl": round(rl_steps)}
    assert task.model_dump()["family"] == family
    assert [(s.name, len(s.source), s.batch_size) for s in stages] == [
        ("sft", 1600, 16),
        ("rl", 1602 if reuse else 2, 14),
    ]
    sft, rl = (run_config.stage_optim(paper, s.name, s.optim) for s in stages)
    assert (sft.lr, sft.schedule, sft.warmup, sft.weight_decay) == (1e-5, "cosine", 100, 0.1)
    assert (rl.lr, rl.schedule, rl.warmup, rl.weight_decay) == (1e-6, "linear", 0, 0.0), "TRL's defaults"
    assert (paper.model.min_pixels, paper.model.max_pixels) == (3136, 480_000)


def test_the_tiny_model_of_reason_rft_keeps_the_settings_of_its_study() -> None:
    tiny, _ = run_config.load(["task=reason_rft"])
    stages = list(make_task(tiny).stages())
    assert allocate_steps(tiny.steps, [(s.name, s.fraction) for s in stages]) == {"sft": 120, "rl": 120}
    assert [run_config.stage_optim(tiny, s.name, s.optim).weight_decay for s in stages] == [0.01, 0.01]


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
