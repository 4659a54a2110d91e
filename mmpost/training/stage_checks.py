"""Check the stages of a task: combinations that cannot work raise before anything is computed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from mmpost.errors import ConfigError
from mmpost.types import FunctionTransform, RefillBatch, Selector, Stage, Task, Transform


def checked_stages(task: Task) -> list[Stage]:
    """All stages of `task`, after `check_stages`."""
    return check_stages(list(task.stages()))


def check_stages(stages: list[Stage]) -> list[Stage]:
    """Return the stages. Raises ConfigError for an invalid stage, and for transforms that conflict."""
    for number, stage in enumerate(stages):
        earlier = {s.name: s for s in stages[:number]}
        if stage.name in earlier:
            raise ConfigError(f"wanted a unique name for each stage, found {stage.name!r} twice; rename one")
        if stage.objective is None:
            _check_data_generation(stage)
        else:
            _check_training(stage)
        refuse_conflicts(f"stage {stage.name!r}", _transforms(stage, earlier))
    return stages


def refuse_conflicts(where: str, transforms: Sequence[Transform]) -> None:
    """Raise ConfigError for the first pair that must not be combined (`Transform.conflicts`), with the reason."""
    for one, other in itertools.permutations(transforms, 2):
        for what, why in one.conflicts.items():
            if matches(what, other):
                raise ConfigError(_refused(where, display_name(one), display_name(other), why))


def refuse_selection_conflicts(
    where: str, conflicts: Mapping[str, str], transforms: Sequence[Transform | RefillBatch]
) -> None:
    """`refuse_conflicts` for samples that a transform of an earlier run selected; `conflicts`: as in its manifest."""
    for what, why in conflicts.items():
        for other in transforms:
            if matches(what, other):
                selector, _, reason = why.partition(": ")
                raise ConfigError(
                    _refused(where, f"samples that were chosen by {selector}", display_name(other), reason)
                )


def _refused(where: str, one: str, other: str, why: str) -> str:
    return f"{where}: {one} must not be combined with {other}: {why}. Leave one of them out"


def matches(what: str | type, transform: Any) -> bool:
    """Whether `what` (a class, the name of a class, or a column that a transform writes) refers to this transform."""
    if isinstance(what, type):
        return isinstance(transform, what)
    makes = transform.makes if isinstance(transform, Transform) else ()
    return what in makes or what in (display_name(transform), *(c.__name__ for c in type(transform).__mro__))


def display_name(transform: Any) -> str:
    """The name of the transform's class, or of the function that it wraps."""
    return (transform.function if isinstance(transform, FunctionTransform) else type(transform)).__name__


def _transforms(stage: Stage, earlier: Mapping[str, Stage]) -> list[Transform]:
    """The transforms of a stage, and the selectors of the stages that it reads from."""
    transforms: list[Transform] = [t for t in stage.transforms if not isinstance(t, RefillBatch)]
    if stage.reads_from is None:
        return transforms
    source = earlier.get(stage.reads_from.stage)
    if source is None or source.objective is not None:
        names = [s.name for s in earlier.values() if s.objective is None]
        raise ConfigError(
            f"stage {stage.name!r} reads the data of {stage.reads_from.stage!r}: wanted an earlier stage without "
            f"objective, found {names or 'none'}"
        )
    return [*transforms, *(t for t in _transforms(source, earlier) if isinstance(t, Selector))]


def _check_data_generation(stage: Stage) -> None:
    if any(isinstance(t, RefillBatch) for t in stage.transforms):
        raise ConfigError(
            f"stage {stage.name!r} has no objective, so each sample is transformed exactly once; "
            "RefillBatch would draw others: remove it, or give the stage an objective"
        )


def _check_training(stage: Stage) -> None:
    selectors = [display_name(t) for t in stage.transforms if isinstance(t, Selector)]
    if selectors:
        raise ConfigError(
            f"stage {stage.name!r}: {selectors[0]} decides after all samples have been processed, which a stage with "
            "an objective never does; move it to a stage without one, and read from that stage (Stage.reads_from)"
        )
    updates = stage.num_iterations * stage.minibatches
    if stage.objective is not None and stage.objective.on_policy_only and updates > 1:
        raise ConfigError(
            f"stage {stage.name!r} makes {updates} updates on each rollout batch, but its objective "
            "assumes on-policy updates (a probability ratio of 1); set its old=column"
        )
