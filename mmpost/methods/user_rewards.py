"""The user's own rewards (`rewards.NAME=path.py:function`), added to whatever a task scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmpost.config import registry
from mmpost.config.settings import parse_weight
from mmpost.errors import ConfigError
from mmpost.transforms.score import Score
from mmpost.types import Bench, Reward, Sample, Stage


@dataclass(frozen=True)
class UserRewards:
    """Reward functions by name, with their weights."""

    functions: Mapping[str, Reward]
    weights: Mapping[str, float]

    @classmethod
    def load(cls, rewards: Mapping[str, str]) -> UserRewards:
        """From the `rewards` section: name -> "module.function", "file.py:function" or either with "*weight".

        Raises PluginError for a function that cannot be found.
        """
        parsed = {name: parse_weight(text) for name, text in rewards.items()}
        functions = {name: registry.member(path, "mmpost.rewards") for name, (path, _) in parsed.items()}
        return cls(functions, {name: 1.0 if weight is None else weight for name, (_, weight) in parsed.items()})

    def in_stages(self, stages: Sequence[Stage]) -> list[Stage]:
        """The stages, in which every `Score` also computes these rewards.

        Raises ConfigError where no stage scores replies, and for a name that the task already uses.
        """
        if not any(isinstance(t, Score) for stage in stages for t in stage.transforms):
            raise ConfigError(
                f"rewards.{next(iter(self.functions))}: the task scores no replies in training; leave it out, or "
                "choose a task with rollouts"
            )
        # With more rewards, what the task declares as the reward of a gold reply no longer holds.
        return [
            replace(s, transforms=self._in(s.transforms), gold=tuple(replace(g, reward=None) for g in s.gold))
            for s in stages
        ]

    def in_benches(self, benches: Sequence[Bench]) -> list[Bench]:
        """The benches, which also compute these rewards and report the mean of each."""
        return [self._in_bench(bench) for bench in benches]

    def _in_bench(self, bench: Bench) -> Bench:
        def summary(samples: Sequence[Sample]) -> dict[str, float]:
            scores = [reply.scores for sample in samples for reply in sample.replies]
            values = {name: [s[name] for s in scores if name in s] for name in self.functions}
            return {**bench.summary(samples), **{name: sum(v) / len(v) for name, v in values.items() if v}}

        return replace(bench, transforms=self._in(bench.transforms), summary=summary)

    def _in(self, steps: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(self._in_score(step) if isinstance(step, Score) else step for step in steps)

    def _in_score(self, score: Score) -> Score:
        taken = sorted(set(score.rewards) & set(self.functions))
        if taken:
            raise ConfigError(f"rewards.{taken[0]}: the task has a reward of that name; choose another name")
        changes = {
            "rewards": {**score.rewards, **self.functions},
            "weights": {**score.weights, **self.weights},
        }
        return score.model_copy(update=changes)
