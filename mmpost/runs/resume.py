"""Going on with a run: what makes it another one, and how the steps that are left are shared out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mmpost.core import run_files
from mmpost.errors import ConfigError
from mmpost.runs import checkpoint, prompt_recipe
from mmpost.training import trainer


def resumable(name: str) -> tuple[Path, Path | None]:
    """The run folder that `resume=NAME` means, and the checkpoint to continue from.

    The checkpoint is the one that is named, or else the newest; None where the run has none, so that it starts again.
    """
    path = Path(name)
    if path.parent.name == "checkpoints":
        return path.parent.parent, checkpoint.newest(path.parent) if path.name == "last" else path.resolve()
    return path, checkpoint.newest(path / "checkpoints")


def check(
    resume: str,
    folder: Path,
    state: Mapping[str, Any],
    wanted: Mapping[str, Any],
    recipe: prompt_recipe.Recipe,
    steps: int,
) -> None:
    """Raises ConfigError where the result would be another run than the one whose checkpoint says `state`."""
    for name, value in wanted.items():
        if state[name] != value:
            raise ConfigError(f"{resume}: its {name} is {state[name]!r}, here {value!r}; resume as it was run")
    other = prompt_recipe.changed(state, recipe)
    if other:
        raise ConfigError(
            f"{resume}: prompts would be made otherwise than so far, in {'; '.join(other)}; put it back as it "
            f"was, or start a new run with model={folder}"
        )
    # A run that was cut off after its last step still owes its evaluation.
    if state["step"] >= steps and run_files.read_json(folder / "summary.json").get("status") == "done":
        raise ConfigError(f"{resume} is at step {state['step']} of {steps}; say steps=N for more")


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all weights and buffers."""
    return {name: value.clone() for name, value in module.state_dict().items()}


@torch.no_grad()
def put_back(module: torch.nn.Module, saved: Mapping[str, torch.Tensor]) -> None:
    """Into the weights and buffers of these names and shapes."""
    for name, value in module.state_dict().items():
        if name in saved and saved[name].shape == value.shape:
            value.copy_(saved[name])


def plan(steps: int, stages: Sequence[tuple[str, float]], state: Mapping[str, Any] | None) -> dict[str, int]:
    """Steps of each stage; finished stages of a resumed run (`state`) keep theirs, the others share what is left."""
    if state is None or not state["stage"]:
        return trainer.allocate_steps(steps, stages)
    made, at = dict(state["plan"]), state["stage"]
    names = [name for name, _ in stages]
    ahead = [(n, share) for n, share in stages[names.index(at) :] if made[n]]
    past = sum(made[n] for n in names[: names.index(at)])
    if sum(made.values()) != steps:
        made |= trainer.allocate_steps(steps - past, ahead)
    return made
