"""The user's own rewards (`rewards.NAME=path.py:function`), joined to whatever any task scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from mmpost.config import registry
from mmpost.config.settings import parse_weight
from mmpost.errors import ConfigError
from mmpost.transforms.score import Score
from mmpost.types import Bench, RefillBatch, Reward, Sample, Split, Stage, Task, Transform

Step = TypeVar("Step", Transform, "Transform | RefillBatch")
Summary = Callable[[Sequence[Sample]], Mapping[str, float]]


def with_rewards(kind: type[Task], own: Mapping[str, str]) -> type[Task]:
    """`kind`, in whose stages and benches every Score also asks these rewards; benches report the mean of each.

    Raises PluginError for a function that cannot be found, ConfigError for a task that scores nothing in training.
    """
    found = {name: parse_weight(text) for name, text in own.items()}
    functions = {name: registry.member(path, "mmpost.rewards") for name, (path, _) in found.items()}
    weights = {name: 1.0 if weight is None else weight for name, (_, weight) in found.items()}

    class Rewarded(kind):  # pyright: ignore[reportGeneralTypeIssues] - a class like any other at run time
        __doc__ = kind.__doc__

        def stages(self) -> Iterator[Stage]:
            stages = list(super().stages())
            if not any(isinstance(t, Score) for stage in stages for t in stage.transforms):
                raise ConfigError(
                    f"rewards.{next(iter(own))}: {kind.__name__} scores no replies in training; leave it out, or "
                    "choose a task with rollouts"
                )
            yield from (_stage(stage, functions, weights) for stage in stages)

        def benches(self, split: Split) -> list[Bench]:
            return [_bench(bench, functions, weights) for bench in super().benches(split)]

    Rewarded.__name__ = Rewarded.__qualname__ = kind.__name__
    return Rewarded


def _stage(stage: Stage, functions: Mapping[str, Reward], weights: Mapping[str, float]) -> Stage:
    # What the task declares for a right reply no longer holds with more rewards.
    gold = tuple(replace(g, reward=None) for g in stage.gold)
    return replace(stage, transforms=_joined(stage.transforms, functions, weights), gold=gold)


def _joined(steps: tuple[Step, ...], functions: Mapping[str, Reward], weights: Mapping[str, float]) -> tuple[Step, ...]:
    return tuple(_score(step, functions, weights) if isinstance(step, Score) else step for step in steps)


def _score(score: Score, functions: Mapping[str, Reward], weights: Mapping[str, float]) -> Score:
    taken = sorted(set(score.rewards) & set(functions))
    if taken:
        raise ConfigError(f"rewards.{taken[0]}: the task has a reward of that name; choose another name")
    changes = {"rewards": {**score.rewards, **functions}, "weights": {**score.weights, **weights}}
    return score.model_copy(update=changes)


def _bench(bench: Bench, functions: Mapping[str, Reward], weights: Mapping[str, float]) -> Bench:
    def summary(samples: Sequence[Sample]) -> dict[str, float]:
        scores = [reply.scores for sample in samples for reply in sample.replies]
        lists = {name: [s[name] for s in scores if name in s] for name in functions}
        return {**bench.summary(samples), **{n: sum(found) / len(found) for n, found in lists.items() if found}}

    return replace(bench, transforms=_joined(bench.transforms, functions, weights), summary=summary)
