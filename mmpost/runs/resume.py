"""Resuming a run: which changes are refused, and how remaining steps are divided among stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mmpost.core import run_files
from mmpost.errors import ConfigError
from mmpost.runs import checkpoint, prompt_recipe
from mmpost.training import trainer


def run_folder(name: str) -> Path:
    """The run folder that `resume=NAME` refers to (see `resumable`)."""
    path = Path(name)
    return path.parent.parent if path.parent.name == "checkpoints" else path


def resumable(name: str) -> tuple[Path, Path | None]:
    """The run folder that `resume=NAME` refers to, and the checkpoint to continue from.

    NAME is a run folder (its newest checkpoint), or RUN/checkpoints/step-N or RUN/checkpoints/last. The checkpoint is
    None if the run has none yet; it then starts over.
    """
    path, folder = Path(name), run_folder(name)
    is_step = path.parent.name == "checkpoints" and path.name != "last"
    return folder, path.resolve() if is_step else checkpoint.newest(folder / "checkpoints")


def check(
    resume: str,
    folder: Path,
    state: Mapping[str, Any],
    expected: Mapping[str, Any],
    recipe: prompt_recipe.Recipe,
    steps: int,
) -> None:
    """Raise ConfigError if the resumed run would differ from the one that wrote the checkpoint `state`.

    `expected`: entries of the state that must be equal; `recipe`: the prompt recipe of the loaded model; `steps`: the
    length of the run; `resume` and `folder`: the argument `resume=` and the run's folder, for error messages.
    """
    for name, value in expected.items():
        if state[name] != value:
            raise ConfigError(
                f"{resume}: wanted {name}={state[name]!r}, found {value!r}; resume with the settings of the run"
            )
    changes = prompt_recipe.changed(state, recipe)
    if changes:
        raise ConfigError(
            f"{resume}: prompts would be built differently than before, in {'; '.join(changes)}; undo this change, or "
            f"start a new run with model={folder}"
        )
    # A run that was killed after its last step may still lack its final evaluation, so it may be resumed; its summary
    # may be that of fewer steps, from before it was resumed for more. One that ended a stage early has taken fewer than
    # planned.
    summary = run_files.read_summary(folder)
    taken = summary.get("steps", steps)
    last = min(taken, steps) if sum(state["plan"].values()) == steps else steps
    if summary.get("status") == "done" and last <= state["step"] <= taken:
        raise ConfigError(f"{resume} is at step {state['step']} of {steps}; set steps=N for more")


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all parameters and buffers."""
    return {name: value.clone() for name, value in module.state_dict().items()}


@torch.no_grad()
def put_back(module: torch.nn.Module, saved: Mapping[str, torch.Tensor]) -> None:
    """Copy saved values into the parameters and buffers of the same name and shape; skip the others."""
    for name, value in module.state_dict().items():
        if name in saved and saved[name].shape == value.shape:
            value.copy_(saved[name])


def plan(steps: int, stages: Sequence[tuple[str, float]], state: Mapping[str, Any] | None) -> dict[str, int]:
    """Divide `steps` among `stages`, given as (name, fraction).

    `state`: that of the checkpoint of a resumed run. Its finished stages keep their steps; if the run's length has
    changed since, the interrupted and later stages divide the rest, except those that had no steps.
    """
    if state is None or not state["stage"]:
        return trainer.allocate_steps(steps, stages)
    steps_per_stage, interrupted = dict(state["plan"]), state["stage"]
    names = [name for name, _ in stages]
    remaining = [(n, fraction) for n, fraction in stages[names.index(interrupted) :] if steps_per_stage[n]]
    finished_steps = sum(steps_per_stage[n] for n in names[: names.index(interrupted)])
    if sum(steps_per_stage.values()) != steps:
        steps_per_stage |= trainer.allocate_steps(steps - finished_steps, remaining)
    return steps_per_stage
