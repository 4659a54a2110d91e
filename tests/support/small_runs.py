"""Settings of minimal runs on random weights, and readers of their output."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import mmpost
from mmpost.config import run_config
from mmpost.core import run_files

QUICK: dict[str, Any] = {
    "model": {"name": "random-tiny"},
    "eval": {"max_samples": 2},
    "log": {"progress": False},
    "steps": 2,
}
"""Settings for any task."""

GROUPS = run_config.merge(
    QUICK, {"task": {"name": "visurf", "prompts_per_step": 2, "num_generations": 2, "sampling": {"max_tokens": 4}}}
)
"""Two groups of two rollouts."""

TWO_STAGES = run_config.merge(
    GROUPS,
    {
        "task": {
            "prompts_per_step": 4,
            "minibatches": 2,
            "sft_fraction": 0.34,
            "policy": {"beta": 0.1},
            "sampling": {"max_tokens": 6},
        },
        "log": {"tensorboard": False},
        "checkpoint": {"every": 1, "keep": 9},
        "steps": 6,
    },
)
"""Two stages, two updates per rollout batch, a reference."""


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Weights of the last checkpoint: of the model, or of its adapters."""
    folder = run / "checkpoints" / "last"
    return load_file(next(iter(sorted(folder.glob("*.safetensors")))))


def same_weights(a: Path, b: Path) -> bool:
    """Whether the final weights of two runs are bit-identical."""
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def lines(run: Path) -> list[dict[str, Any]]:
    """The logged metrics of each step."""
    return run_files.read_lines(run / "metrics.jsonl", run_files.MetricsLine)


def metrics(run: Path) -> list[dict[str, Any]]:
    """The logged metrics without timings."""
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines(run)]


def resume_copy(run: Path, step: int, copy: Path) -> Path:
    """Copy a finished run to `copy`, and resume the copy from the checkpoint of `step`."""
    shutil.copytree(run, copy, symlinks=True)
    mmpost.train(resume=str(copy / "checkpoints" / f"step-{step}"))
    return copy
