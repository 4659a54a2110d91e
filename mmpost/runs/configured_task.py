"""A task with the user's rewards and data selection applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmpost.config import registry, run_config
from mmpost.config.run_config import RunConfig
from mmpost.config.settings import OptimSettings
from mmpost.errors import ConfigError
from mmpost.methods.user_rewards import UserRewards
from mmpost.selection.attach import apply_selection
from mmpost.training.stage_checks import check_stages
from mmpost.types import Bench, Split, Stage, Task


@dataclass(frozen=True)
class ConfiguredTask:
    """A task, and the sections of a configuration that apply to any task."""

    task: Task
    config: RunConfig

    @classmethod
    def load(cls, config: RunConfig) -> ConfiguredTask:
        """The task that `config` names. Raises ConfigError for unknown fields, PluginError for an unknown task."""
        return cls(make_task(config), config)

    @property
    def best_metric(self) -> str:
        """The metric that selects the best checkpoint, see `Task.best_metric`."""
        return self.task.best_metric

    def stages(self) -> list[Stage]:
        """All stages, checked. Raises ConfigError for conflicting settings."""
        stages = list(self.task.stages())
        if self.config.rewards:
            stages = UserRewards.load(self.config.rewards).in_stages(stages)
        selected = apply_selection(stages, self.config.select, self.config.data, self.config.seed)
        return check_stages(list(selected))

    def optim(self, stage: Stage) -> OptimSettings:
        """The optimizer settings of a stage, with the metric that they follow."""
        optim = run_config.stage_optim(self.config, stage.name, stage.optim)
        return optim.model_copy(update={"monitor": optim.monitor or self.best_metric})

    def check_monitors(self, stages: Sequence[Stage]) -> None:
        """Raise ConfigError for a stage whose optimizer follows an evaluation that does not run."""
        trained = [(stage, self.optim(stage)) for stage in stages if stage.objective and stage.update is None]
        following = [(stage, optim) for stage, optim in trained if optim.follows_evaluations]
        benches = [bench.name for bench in self.benches("val")] if following and self.config.eval.every else []
        for stage, optim in following:
            what = "schedule=plateau" if optim.schedule == "plateau" else "early_stopping_patience"
            if not self.config.eval.every:
                raise ConfigError(
                    f"stage {stage.name!r}: optim.{what} follows evaluations on val, but eval.every=0 asks for none; "
                    "set eval.every to the steps between them, or choose schedule=constant, linear or cosine and no "
                    "early stopping"
                )
            if optim.monitor.removeprefix("-").partition("/")[0] not in benches:
                raise ConfigError(
                    f"stage {stage.name!r}: optim.{what} follows optim.monitor, which must be a metric of the "
                    f"evaluations on val ({', '.join(f'{name}/...' for name in benches) or 'there are none'}), found "
                    f"{optim.monitor!r}; set it"
                )

    def benches(self, split: Split) -> list[Bench]:
        """The evaluations on `split`."""
        benches = list(self.task.benches(split))
        return UserRewards.load(self.config.rewards).in_benches(benches) if self.config.rewards else benches


def make_task(config: RunConfig) -> Task:
    """The task that a configuration names, with its fields decoded."""
    task_class = registry.exported(registry.module(config.task["name"], "mmpost.tasks"), Task)
    fields = run_config.task_fields(config.task)
    return run_config.decode(task_class, {**fields, "data": config.data}, "task.")


def evaluated_tasks(config: RunConfig) -> dict[str, ConfiguredTask]:
    """The tasks of `eval.tasks` by name, each with the shipped configuration for the run's model."""
    tasks = {}
    for name, evaluated in config.eval.tasks.items():
        settings = {
            "task": evaluated.task,
            "data": evaluated.data.model_dump(exclude_unset=True),
            "rewards": evaluated.rewards,
            "model": config.model.name,
        }
        tasks[name] = ConfiguredTask.load(run_config.load([settings])[0])
    return tasks
