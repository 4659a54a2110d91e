"""The description of a continual-learning study: tasks in order, arms, and the chains of cells to run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmpost.config import registry, run_config
from mmpost.config.settings import Settings
from mmpost.errors import ConfigError
from mmpost.runs.configured_task import ConfiguredTask, make_task
from mmpost.studies.study import ArmsStudy, Cell, Study, read_yaml
from mmpost.types import Bench

ARMS = ("sft", "grpo")
"""Default arms of tasks=a,b,c, as defined in the tasks' own studies."""


class TaskEntry(Settings):
    """A task of the sequence, or one that is only evaluated."""

    task: str
    """The task to train, whose test split also gives the accuracy."""
    set: dict[str, Any] = {}
    """Its settings: the task's fields, data, steps, ..."""
    accuracy: str = ""
    """The metric that counts as accuracy, as "bench/metric", higher is better; empty: the task's `best_metric`."""
    arms: dict[str, dict[str, Any]] = {}
    """Settings of single arms for this task. An arm may train another task here; it is still evaluated by this one."""


class ContinualStudy(ArmsStudy):
    """A file of configs/continual/: what `mmpost continual` trains. Arms are tuned on val of the first task, since the
    later tasks are unknown while it is trained."""

    tasks: dict[str, TaskEntry]
    """The tasks in training order, by names of your choice."""
    joint: TaskEntry | None = None
    """A task that trains on all of `tasks` jointly, by default for the sum of their steps."""
    general: dict[str, TaskEntry] = {}
    """Evaluations of the base model's abilities that no task trains."""

    @property
    def trained(self) -> list[TaskEntry]:
        """The tasks, and the joint one if there is one."""
        return [*self.tasks.values(), *([self.joint] if self.joint else [])]

    def with_settings(self, settings: Mapping[str, Any]) -> ContinualStudy:
        """The study with `settings` on top of those of all tasks, below those of the arms.

        Steps do not apply to the joint task, whose default is the sum of the tasks' steps.
        """

        def changed(entry: TaskEntry, settings: Mapping[str, Any]) -> TaskEntry:
            return entry.model_copy(update={"set": run_config.merge(entry.set, settings)})

        shared = {key: value for key, value in settings.items() if key != "steps"}
        return self.model_copy(
            update={
                "tasks": {name: changed(entry, settings) for name, entry in self.tasks.items()},
                "general": {name: changed(entry, settings) for name, entry in self.general.items()},
                "joint": changed(self.joint, shared) if self.joint else None,
            }
        )


@dataclass(frozen=True)
class Column:
    """A column of the accuracy matrix: an evaluation that follows the training of each task."""

    name: str
    bench: Bench
    metric: str
    settings: Mapping[str, Any]
    """As an entry of `eval.tasks`."""

    @property
    def key(self) -> str:
        """The key of its scored samples in `Result.test_samples`."""
        return f"{self.name}/{self.bench.name}"


def load_study(
    name: str, tasks: Sequence[str], arms: Sequence[str] | None, settings: Mapping[str, Any]
) -> ContinualStudy:
    """The study `name` (of configs/continual/, or a YAML file); without a name, one of the registered `tasks`.

    `tasks` and `arms` select and order those of a named study; with only some of its tasks it has no joint task.
    `settings` go on top of those of all tasks, below those of the arms.
    """
    if len(set(tasks)) < len(tasks):
        raise ConfigError(
            f"tasks={','.join(tasks)}: wanted each task once; to repeat one, write a study that names each repetition"
        )
    if name:
        raw = read_yaml(name, "continual", "tasks and arms")
        study = _select_tasks(run_config.decode(ContinualStudy, raw, f"{name}: "), tasks)
    elif tasks:
        study = _study_of_tasks(tasks, arms or ARMS)
    else:
        raise ConfigError("wanted study=NAME (configs/continual/), study=FILE.yaml or tasks=a,b,c, found none")
    study = study.select_arms(arms).with_settings(settings)
    if len(study.tasks) < 2:
        raise ConfigError(f"wanted at least two tasks, found {', '.join(study.tasks) or 'none'}")
    duplicates = set(study.tasks) & set(study.general)
    invalid = [name for name in (*study.tasks, *study.general, *study.arms) if not re.fullmatch(r"[\w-]+", name)]
    if invalid or duplicates:
        raise ConfigError(
            "names of tasks, general and arms: wanted letters, digits, - and _, each once; found "
            f"{invalid or duplicates}"
        )
    return study


def _select_tasks(study: ContinualStudy, names: Sequence[str]) -> ContinualStudy:
    if not names:
        return study
    if not study.tasks.keys() >= set(names):
        raise ConfigError(f"tasks={','.join(names)}: the study has the tasks {', '.join(study.tasks)}")
    joint = study.joint if len(names) == len(study.tasks) else None
    return study.model_copy(update={"tasks": {name: study.tasks[name] for name in names}, "joint": joint})


def _study_of_tasks(names: Sequence[str], arms: Sequence[str]) -> ContinualStudy:
    """Registered tasks in this order, with the settings and arms of their studies in configs/studies/."""
    entries = {}
    for name in names:
        study = Study.load(name)
        missing = [arm for arm in arms if arm not in study.arms]
        if missing:
            raise ConfigError(
                f"task={name} has no arm {missing[0]!r} in configs/studies/{name}.yaml (it has "
                f"{', '.join(study.arms)}); name others with arms=, or write a study file"
            )
        settings = run_config.merge({"model": study.model} if study.model else {}, study.set)
        selected = {arm: {k: v for k, v in study.arms[arm].items() if k != "tune"} for arm in arms}
        entries[registry.label(name)] = TaskEntry(task=study.task, set=settings, arms=selected)
    return ContinualStudy(tasks=entries, arms={arm: {} for arm in arms})


def task_study(study: ContinualStudy, entry: TaskEntry, arm: str) -> Study:
    """One task of the sequence for one arm, as a study of `mmpost compare`."""
    settings = _override(_override(_entry_settings(study, entry), study.arms[arm]), entry.arms.get(arm, {}))
    options = {"tune": settings.pop("tune")} if "tune" in settings else {}
    return Study(
        task=settings["task"]["name"],
        set=settings,
        arms={arm: options},
        tune=study.tune,
        tune_seeds=study.tune_seeds,
        widen=study.widen,
        bases=study.bases,
    )


def _entry_settings(study: ContinualStudy, entry: TaskEntry) -> dict[str, Any]:
    model = {"model": study.model} if study.model else {}
    settings = run_config.merge(run_config.merge(model, study.set), entry.set)
    return run_config.merge(settings, {"task": entry.task})


def _override(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` on top of `settings`. If they name another task, the old task's fields do not apply and are dropped."""
    changes = run_config.merge({}, changes)
    is_other_task = changes.get("task", {}).get("name", settings["task"]["name"]) != settings["task"]["name"]
    return run_config.merge({k: v for k, v in settings.items() if not (is_other_task and k == "task")}, changes)


def columns(study: ContinualStudy) -> list[Column]:
    """The evaluations: those of all tasks in order, then the general ones; the same for all arms."""
    result = []
    for name, entry in (study.tasks | study.general).items():
        settings = _entry_settings(study, entry)
        task = ConfiguredTask.load(run_config.load([settings])[0])
        accuracy = entry.accuracy or task.best_metric
        name_of_bench, _, metric = accuracy.partition("/")
        benches = {bench.name: bench for bench in task.benches("test")}
        if name_of_bench not in benches or not metric:
            known = ", ".join(f"{name}/..." for name in benches) or "no bench on test (set data.test)"
            raise ConfigError(
                f'{name}: wanted accuracy="bench/metric" where higher is better, found {accuracy!r}; {known}'
            )
        full = resolve(settings)
        evaluated = {key: full[key] for key in ("task", "data", "rewards") if key in full}
        result.append(Column(name, benches[name_of_bench], metric, {**evaluated, "benches": [name_of_bench]}))
    return result


def resolve(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` with all defaults of configs/ and of the task written out.

    A run that starts from another run of the same task inherits that task's settings. In a sequence that would make a
    task depend on the previous one, so nothing may be left to inherit. Fields of `optim` that a stage may set stay
    unset.
    """
    run, _ = run_config.load([settings])
    out = run.model_dump(mode="json", exclude_unset=True)
    out["task"] = {"name": run.task["name"], **make_task(run).model_dump(mode="json", exclude={"data"})}
    out["model"] = {
        "name": run.model.name,
        **out.get("model", {}),
        **{k: getattr(run.model, k) for k in run_config.PROMPT_RECIPE_FIELDS},
    }
    return out


def chain(
    study: ContinualStudy, evaluations: Sequence[Column], arm: str, values: Mapping[str, float], seed: int
) -> list[Cell]:
    """The runs of an arm on the tasks in sequence, each followed by all evaluations."""
    return [
        _cell(task_study(study, entry, arm), evaluations, values, seed, f"{arm}-{position}-{name}")
        for position, (name, entry) in enumerate(study.tasks.items(), 1)
    ]


def joint(
    study: ContinualStudy, evaluations: Sequence[Column], arm: str, values: Mapping[str, float], seed: int
) -> list[Cell]:
    """The run of an arm on all tasks jointly; empty if the study has no joint task."""
    if study.joint is None:
        return []
    total_steps = sum(cell.steps for cell in chain(study, (), arm, values, seed))
    steps = None if "steps" in study.joint.set else total_steps
    return [_cell(task_study(study, study.joint, arm), evaluations, values, seed, f"{arm}-joint", steps)]


def base_cell(study: ContinualStudy, evaluations: Sequence[Column], seed: int = 0) -> Cell:
    """A run of 0 steps: the evaluations of the model that all arms start from."""
    arm, entry = next(iter(study.arms)), next(iter(study.tasks.values()))
    return _cell(task_study(study, entry, arm), evaluations, {}, seed, "base", steps=0)


def _cell(
    study: Study,
    evaluations: Sequence[Column],
    values: Mapping[str, float],
    seed: int,
    label: str,
    steps: int | None = None,
) -> Cell:
    """The run of a one-arm study (for its own number of steps, or `steps`), with resolved settings, the name `label`,
    and these evaluations in place of its task's."""
    (arm,) = study.arms
    if steps is None:
        steps = run_config.load([study.arm_settings(arm, values)])[0].steps
    cell = study.cell(arm, values, seed, steps)
    tests = {"eval": {"tasks": {column.name: column.settings for column in evaluations}}}
    return replace(cell, arm=label, settings=resolve(run_config.merge(cell.settings, tests)))


def check(study: ContinualStudy) -> str:
    """The model that all runs start from. Checks the configurations of all tasks and arms before any is trained.

    Raises ConfigError for a wrong setting, or different models.
    """
    configs = [run for entry in study.trained for arm in study.arms for run in task_study(study, entry, arm).check()]
    models = sorted({run.model.name for run in configs})
    if len(models) > 1:
        raise ConfigError(f"wanted one model for all tasks, found {', '.join(models)}; set model=NAME")
    return models[0]
