"""The stages of a task, checked: what cannot work together must show before anything is computed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from mmpost.errors import ConfigError
from mmpost.types import FunctionTransform, RefillBatch, Selector, Stage, Task, Transform


def checked_stages(task: Task) -> list[Stage]:
    """All stages of `task`, checked."""
    return check_stages(list(task.stages()))


def check_stages(made: list[Stage]) -> list[Stage]:
    """The stages. Raises ConfigError for what one cannot do, and for transforms that refuse one another."""
    for number, stage in enumerate(made):
        earlier = {s.name: s for s in made[:number]}
        if stage.name in earlier:
            raise ConfigError(f"wanted a name of its own for each stage, found {stage.name!r} twice; rename one")
        if stage.objective is None:
            _makes_data(stage)
        else:
            _trains(stage)
        refuse_conflicts(f"stage {stage.name!r}", _transforms(stage, earlier))
    return made


def refuse_conflicts(where: str, transforms: Sequence[Transform]) -> None:
    """Raises ConfigError for the first two that must not be combined (`conflicts`), with the reason."""
    for one, other in itertools.permutations(transforms, 2):
        for what, why in one.conflicts.items():
            if matches(what, other):
                raise ConfigError(_refused(where, display_name(one), display_name(other), why))


def refuse_selection_conflicts(
    where: str, conflicts: Mapping[str, str], transforms: Sequence[Transform | RefillBatch]
) -> None:
    """The same for samples that were chosen by a transform at another time; `conflicts` as a manifest has them."""
    for what, why in conflicts.items():
        for other in transforms:
            if matches(what, other):
                chooser, _, reason = why.partition(": ")
                raise ConfigError(
                    _refused(where, f"samples that were chosen by {chooser}", display_name(other), reason)
                )


def _refused(where: str, one: str, other: str, why: str) -> str:
    return f"{where}: {one} must not be combined with {other}: {why}. Leave one of them out"


def matches(what: str | type, transform: Any) -> bool:
    """Whether `what`, a class, the name of one, or the name of a column that is made, means this transform."""
    if isinstance(what, type):
        return isinstance(transform, what)
    makes = transform.makes if isinstance(transform, Transform) else ()
    return what in makes or what in (display_name(transform), *(c.__name__ for c in type(transform).__mro__))


def display_name(transform: Any) -> str:
    """The name of the function, or of the transform's class."""
    return (transform.function if isinstance(transform, FunctionTransform) else type(transform)).__name__


def _transforms(stage: Stage, earlier: Mapping[str, Stage]) -> list[Transform]:
    """What the samples of a stage went through, also in the stage that it reads from."""
    own: list[Transform] = [t for t in stage.transforms if not isinstance(t, RefillBatch)]
    if stage.reads_from is None:
        return own
    source = earlier.get(stage.reads_from.stage)
    if source is None or source.objective is not None:
        names = [s.name for s in earlier.values() if s.objective is None]
        raise ConfigError(
            f"stage {stage.name!r} reads what {stage.reads_from.stage!r} recorded: wanted an earlier stage without "
            f"objective, found {names or 'none'}"
        )
    return [*own, *(t for t in _transforms(source, earlier) if isinstance(t, Selector))]


def _makes_data(stage: Stage) -> None:
    if any(isinstance(t, RefillBatch) for t in stage.transforms):
        raise ConfigError(
            f"stage {stage.name!r} has no objective, so each sample goes through its transforms once; "
            "RefillBatch would draw others: leave it out, or give the stage an objective"
        )


def _trains(stage: Stage) -> None:
    settling = [display_name(t) for t in stage.transforms if isinstance(t, Selector)]
    if settling:
        raise ConfigError(
            f"stage {stage.name!r}: {settling[0]} judges when all samples have been measured, which a stage with an "
            "objective never sees; put it into a stage without one, and let this stage read that (Stage.reads)"
        )
    if stage.objective is not None and stage.objective.on_policy_only and stage.updates_per_batch > 1:
        raise ConfigError(
            f"stage {stage.name!r} makes {stage.updates_per_batch} updates on each rollout batch, but its objective "
            "takes the policy as it is for the old one; set its old=column"
        )
