"""What a paper did is what `model=<its model>` gets; the tiny model keeps the settings of the studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpost.config import run_config
from mmpost.config.settings import OptimSettings
from mmpost.objectives import kl
from mmpost.rewards import box
from mmpost.runs.configured_task import ConfiguredTask, make_task
from mmpost.training.trainer import allocate_steps
from mmpost.transforms.generate import Generate
from mmpost.transforms.score import Score
from mmpost.updates.adamw import schedule

TEMPORAL, AUDIO, AERIAL = "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2-Audio-7B-Instruct", "Qwen/Qwen2-VL-2B-Instruct"
GROUNDING, REASONING = "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2-VL-2B-Instruct"
CHEST, STARS, TABLES = "StanfordAIMI/CheXagent-2-3b", "random-astrom3", "Qwen/Qwen2.5-VL-3B-Instruct"

SETTINGS = [
    ("temporal_r1", TEMPORAL, "policy.loss_type", "bnpo", "grpo"),
    ("temporal_r1", TEMPORAL, "policy.kl_gradient", "plain", "corrected"),
    ("temporal_r1", TEMPORAL, "policy.kl_bound", 10.0, None),
    ("temporal_r1", TEMPORAL, "policy.beta", 0.01, 0.01),
    ("r1_aqa", AUDIO, "reward", "released", "strict"),
    ("r1_aqa", AUDIO, "channel", "first", "mean"),
    ("uav_vl_r1", AERIAL, "replay", 0.0, 0.2),
    ("visurf", GROUNDING, "inclusive_iou", True, False),
    ("cxr_preference", CHEST, "best_decoding", "greedy", "sampled"),
    ("cxr_preference", CHEST, "best_metric", "reports/judge", "sampled/judge"),
    ("trivia", TABLES, "policy.loss_type", "bnpo", "bnpo"),
    ("trivia", TABLES, "policy.beta", 0.04, 0.0),
    ("trivia", TABLES, "sampling.temperature", 1.2, 1.0),
    ("trivia", TABLES, "sampling.max_tokens", 4500, 128),
    ("trivia", TABLES, "advantage.eps", 1e-4, 1e-4),
    ("trivia", TABLES, "num_generations", 8, 8),
    ("trivia", TABLES, "prompts_per_step", 64, 16),
    ("trivia", TABLES, "illegal.oversample", 1.5, 1.5),
    ("trivia", TABLES, "illegal.refill", True, False),
    ("trivia", TABLES, "pictures.low", 0.4, 0.4),
    ("trivia", TABLES, "questions.diverse.n", 30, 16),
    ("trivia", TABLES, "answers.by", "server", "exact"),
    ("trivia", TABLES, "answers.f1", "token", "token"),
]

ALL, SPECTRUM = ("light_curve", "spectrum", "record"), ("spectrum",)
RELEASED = {
    # mode, use_pretrain: lr, beta1, weight_decay, clip_value (0: clip_grad false), scheduler_factor
    (ALL, False): (0.004245950735615241, 0.9149847679934764, 6.932710515336774e-05, 0, 0.10036344327338788),
    (ALL, True): (0.009503844452880602, 0.9455816440753502, 5.9378158708231784e-05, 0, 0.19649668104853457),
    (("light_curve",), False): (
        0.0029252820182446636,
        0.9896136892033424,
        4.706594018512592e-05,
        5,
        0.5055209371179913,
    ),
    (("light_curve",), True): (
        0.0009337723840241396,
        0.8347684737102469,
        0.0004658149677837722,
        5,
        0.38533998014804666,
    ),
    (SPECTRUM, False): (0.003970178217704787, 0.7623427777917324, 0.00015797808521611945, 5, 0.6019231988810758),
    (SPECTRUM, True): (0.002551272196821267, 0.8721148404707444, 8.087959846227878e-05, 5, 0.6215150999952266),
    (("record",), False): (0.002744981242271558, 0.9219791256930212, 0.00026179047214550745, 0, 0.3720521973024151),
    (("record",), True): (0.003807087044171265, 0.759598631365203, 8.915027085354487e-05, 0, 0.33188908171820974),
}
"""AstroM3's classifiers on all labels: configs/config-{all,photo,spectra,meta}-full[-clip].yaml of the release."""


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


def optims(*arguments: str) -> dict[str, OptimSettings]:
    """The optimizer settings of each stage of AstroM3."""
    task = ConfiguredTask.load(run_config.load(["task=astrom3", *arguments])[0])
    stages = task.stages()
    task.check_monitors(stages)
    return {stage.name: task.optim(stage) for stage in stages}


def tuned(optim: OptimSettings) -> tuple[float, ...]:
    return optim.lr, optim.betas[0], optim.weight_decay, optim.max_grad_norm, optim.plateau_factor


@pytest.mark.parametrize(("modalities", "pretrained"), RELEASED)
def test_the_optimizer_of_each_classifier_of_astrom3(modalities: tuple[str, ...], pretrained: bool) -> None:
    chosen = [f"task.modalities=[{','.join(modalities)}]", f"task.pretrain={pretrained}"]
    optim = optims(f"model={STARS}", *chosen)["classify"]
    assert tuned(optim) == pytest.approx(RELEASED[modalities, pretrained], rel=1e-3)
    # The same in all of these files: Adam, epochs of warm-up from 1e-5, and what is done when the loss on val stalls.
    assert (optim.name, optim.weight_decay_on, optim.betas[1], optim.lr_multipliers) == ("adam", "all", 0.999, {})
    assert (optim.warmup, optim.warmup_start, optim.warmup_interval) == (330, 1e-5, 33)
    assert (optim.schedule, optim.plateau_patience, optim.monitor) == ("plateau", 3, "-class/loss")
    assert optim.early_stopping_patience == 6
    tiny = optims(*chosen)["classify"]
    assert (tiny.name, tiny.lr, tiny.betas, tiny.weight_decay) == ("adamw", 3e-2, (0.9, 0.98), 0.01)
    assert (tiny.max_grad_norm, tiny.schedule, tiny.warmup, tiny.early_stopping_patience) == (5, "cosine", 5, 0)
    assert tiny.lr_multipliers == {"record": 0.0, "projector": 0.0}
    assert schedule(tiny, 0, 100) == 1 / 6


def test_the_optimizer_of_pretraining_of_astrom3() -> None:
    """configs/config-clip-full.yaml of the release."""
    optim = optims(f"model={STARS}")["contrast"]
    released = (0.0039210319036872545, 0.9261921550228268, 0.004670071421955371, 45, 0.1125080808385063)
    assert tuned(optim) == pytest.approx(released, rel=1e-3)
    assert (optim.name, optim.weight_decay_on) == ("adam", "all")
    assert (optim.schedule, optim.monitor) == ("plateau", "-contrast/loss")
    assert (optim.plateau_patience, optim.early_stopping_patience) == (3, 6)
    # LinearLR from 1e-5 over ten epochs of 33 steps: a tenth more in each.
    expected = [1e-5 + (1 - 1e-5) * epoch / 10 for epoch in range(10) for _ in range(33)] + [1.0] * 33
    assert [schedule(optim, step, 3300) for step in range(363)] == pytest.approx(expected)
    tiny = optims()["contrast"]
    assert tuned(tiny)[:4] == (4e-3, 0.9, 0.01, 5)
    assert (tiny.name, tiny.schedule, tiny.warmup, tiny.early_stopping_patience) == ("adamw", "cosine", 20, 0)
    assert tiny.weight_decay_on == "matrices"
    assert schedule(tiny, 0, 400) == 1 / 21


def test_the_epochs_and_evaluations_of_astrom3_and_chexalign() -> None:
    paper, tiny = (run_config.load(["task=astrom3", *more])[0] for more in ([f"model={STARS}"], []))
    fraction = make_task(paper).contrast_fraction  # type: ignore[attr-defined]
    steps = allocate_steps(paper.steps, [("contrast", fraction), ("classify", 1 - fraction)])
    assert steps == {"contrast": 100 * 33, "classify": 50 * 33}
    assert (paper.eval.every, tiny.eval.every, tiny.steps) == (33, 0, 500)
    chest, tiny_chest = (run_config.load(["task=cxr_preference", *more])[0] for more in ([f"model={CHEST}"], []))
    assert (chest.eval.every, chest.checkpoint.every, tiny_chest.eval.every) == (200, 200, 0)


def test_settings_of_the_user_replace_those_of_the_paper() -> None:
    own = optims(f"model={STARS}", "optim.lr=0.5", "stages.classify.optim.schedule=constant")
    assert [(optim.lr, optim.schedule) for optim in own.values()] == [(0.5, "plateau"), (0.5, "constant")]


def test_reports_that_select_the_best_checkpoint_are_greedy() -> None:
    """The released CheXagent.generate: do_sample false and one beam, unless candidates are drawn."""
    task = make_task(run_config.load(["task=cxr_preference", f"model={CHEST}"])[0])
    name = task.best_metric.partition("/")[0]
    (bench,) = [bench for bench in task.benches("val") if bench.name == name]
    (generate,) = [transform for transform in bench.transforms if isinstance(transform, Generate)]
    assert (generate.n, generate.sampling.temperature, generate.sampling.max_tokens) == (1, 0, 512)
