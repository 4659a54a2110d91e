"""A study of learning one task after another: the tasks in order, the arms, and the cells that this comes to."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from mmpost.config import registry, run_config
from mmpost.config.settings import Settings
from mmpost.errors import ConfigError
from mmpost.runs.configured_task import make_task
from mmpost.studies import study as compared
from mmpost.studies.study import Cell, Study, cell, grid, settings_of
from mmpost.types import Bench, Sample

ARMS = "sft,grpo"
"""Arms of tasks that are named without a study: those of that name in the tasks' own studies."""


class Entry(Settings):
    """A task of the sequence, or one that is only evaluated."""

    task: str
    """The task that is trained, and whose test split gives its accuracy."""
    set: dict[str, Any] = {}
    """Its settings: the task's fields, data, steps, ..."""
    accuracy: str = ""
    """What counts as accuracy, as "bench/metric", where more is better; empty: the task's own best metric."""
    arms: dict[str, dict[str, Any]] = {}
    """Settings of single arms for this task. An arm that names another task here is still evaluated by this one."""


class ContinualStudy(Settings):
    """A file of configs/continual/: what `mmpost continual` trains."""

    model: str | None = None
    """The model that the first task starts from; by default the tasks', which must agree."""
    set: dict[str, Any] = {}
    """Settings of all tasks and arms."""
    tasks: dict[str, Entry]
    """The tasks by names of your own, in the order in which they are learnt."""
    joint: Entry | None = None
    """All tasks at once, as a task of its own, for as many steps as they have together unless it says otherwise."""
    general: dict[str, Entry] = {}
    """What nothing is trained for and is evaluated all the same: what the base knew before."""
    arms: dict[str, dict[str, Any]] = Field(min_length=1)
    """Settings of each arm by its name. `tune` among them replaces the study's grid for this arm."""
    tune: dict[str, tuple[float, ...]] = {}
    """Values to try for a setting, on val of the first task: the later ones are not known yet when that is learnt."""
    tune_seeds: int = Field(default=1, ge=1)
    """Runs behind each point of the grid."""
    against: str = ""
    """The arm that the others are compared with; empty: the last."""


@dataclass(frozen=True)
class Column:
    """An evaluation that is made after each task: a column of the matrix."""

    name: str
    bench: Bench
    metric: str
    settings: Mapping[str, Any]
    """As `eval.tasks` takes it."""

    @property
    def place(self) -> str:
        """Under which its scored samples are found."""
        return f"{self.name}/{self.bench.name}"

    def accuracy(self, samples: Sequence[Sample]) -> float:
        """NaN where these samples lack the metric."""
        return float(self.bench.summary(samples).get(self.metric, math.nan))


def read(study: str | None, tasks: str | None, arms: str | None, over: Mapping[str, Any]) -> ContinualStudy:
    """The study that these words name: one of configs/continual/, a YAML file, or a list of tasks with none.

    `tasks` and `arms` choose and order those of a study (without all its tasks it has no `joint`); without a study,
    `tasks` are registered tasks. `over` are settings on top of those of all tasks, and below those of the arms.
    """
    names = [name for name in (tasks or "").split(",") if name]
    if len(set(names)) < len(names):
        raise ConfigError(f"tasks={tasks}: wanted each task once; give a study with a name for each time it is learnt")
    if study is not None:
        found = run_config.decode(ContinualStudy, compared.document(study, "continual", "tasks and arms"), f"{study}: ")
    elif names:
        found = _of_tasks(names, [arm for arm in (arms or ARMS).split(",") if arm])
    else:
        raise ConfigError("wanted study=NAME (configs/continual/), study=FILE.yaml or tasks=a,b,c")
    unknown = [name for name in names if name not in found.tasks and study is not None]
    if unknown:
        raise ConfigError(f"tasks={tasks}: the study has the tasks {', '.join(found.tasks)}")
    if names and study is not None:
        whole = set(names) == set(found.tasks)
        chosen = {"tasks": {name: found.tasks[name] for name in names}, "joint": found.joint if whole else None}
        found = found.model_copy(update=chosen)
    found = found.model_copy(update=compared.picked(found.arms, found.against, arms))
    entries: dict[str, Any] = {
        of: {name: entry.model_copy(update={"set": run_config.merge(entry.set, over)}) for name, entry in held.items()}
        for of, held in (("tasks", found.tasks), ("general", found.general))
    }
    if found.joint is not None:
        changes = {key: value for key, value in over.items() if key != "steps"}
        entries["joint"] = found.joint.model_copy(update={"set": run_config.merge(found.joint.set, changes)})
    found = found.model_copy(update=entries)
    if len(found.tasks) < 2:
        raise ConfigError(f"wanted two tasks at least, one after another, found {', '.join(found.tasks) or 'none'}")
    twice = set(found.tasks) & set(found.general)
    odd = [name for name in (*found.tasks, *found.general, *found.arms) if not re.fullmatch(r"[\w-]+", name)]
    if odd or twice:
        raise ConfigError(
            f"names of tasks, general and arms: wanted letters, digits, - and _, each once; found {odd or twice}"
        )
    return found


def _of_tasks(names: Sequence[str], arms: Sequence[str]) -> ContinualStudy:
    """Registered tasks in this order, with the settings and arms of their studies in configs/studies/."""
    entries = {}
    for name in names:
        own = compared.read(name)
        missing = [arm for arm in arms if arm not in own.arms]
        if missing:
            raise ConfigError(
                f"task={name} has no arm {missing[0]!r} in configs/studies/{name}.yaml (there are "
                f"{', '.join(own.arms)}); name others with arms=, or write a study of your own"
            )
        settings = run_config.merge({"model": own.model} if own.model else {}, own.set)
        chosen = {arm: {k: v for k, v in own.arms[arm].items() if k != "tune"} for arm in arms}
        entries[registry.label(name)] = Entry(task=own.task, set=settings, arms=chosen)
    return ContinualStudy(tasks=entries, arms={arm: {} for arm in arms})


def described(study: ContinualStudy, entry: Entry, arm: str) -> Study:
    """One task of the sequence for one arm, as a study of `mmpost compare`."""
    settings = _over(_over(_settings(study, entry), study.arms[arm]), entry.arms.get(arm, {}))
    tried = {"tune": settings.pop("tune")} if "tune" in settings else {}
    return Study(
        task=settings["task"]["name"], set=settings, arms={arm: tried}, tune=study.tune, tune_seeds=study.tune_seeds
    )


def _settings(study: ContinualStudy, entry: Entry) -> dict[str, Any]:
    model = {"model": study.model} if study.model else {}
    settings = run_config.merge(run_config.merge(model, study.set), entry.set)
    return run_config.merge(settings, {"task": entry.task})


def _over(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` on top; where they name another task, that of `settings` goes with all its fields."""
    changes = run_config.merge({}, changes)
    other = changes.get("task", {}).get("name", settings["task"]["name"]) != settings["task"]["name"]
    return run_config.merge({k: v for k, v in settings.items() if not (other and k == "task")}, changes)


def columns(study: ContinualStudy) -> list[Column]:
    """The evaluations: those of all tasks in order, then the general ones. Arms change nothing about them."""
    found = []
    for name, entry in (study.tasks | study.general).items():
        run, _ = run_config.load([_settings(study, entry)])
        task = make_task(run)
        accuracy = entry.accuracy or task.best_metric
        bench, _, metric = accuracy.partition("/")
        benches = {one.name: one for one in task.benches("test")}
        if bench not in benches or not metric:
            there = ", ".join(f"{one}/..." for one in benches) or "no bench on test (say data.test)"
            raise ConfigError(
                f'{name}: wanted accuracy="bench/metric" where more is better, found {accuracy!r}; {there}'
            )
        whole = resolved(_settings(study, entry))
        settings = {key: whole[key] for key in ("task", "data", "rewards") if key in whole}
        found.append(Column(name, benches[bench], metric, {**settings, "benches": [bench]}))
    return found


def resolved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` with all that configs/ says, so that the run they start from adds nothing of its own.

    A run as the model of another brings its task's settings along where both have the same task; here they would make
    a task depend on the one before. What was left open (`optim`) stays open to the stages.
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
    """The runs of an arm, task after task, each followed by all evaluations."""
    found = []
    for place, (name, entry) in enumerate(study.tasks.items(), 1):
        own = described(study, entry, arm)
        one = cell(own, arm, values, seed, steps_of(own, arm, values))
        found.append(evaluated(one, evaluations, f"{arm}-{place}-{name}"))
    return found


def joint(
    study: ContinualStudy, evaluations: Sequence[Column], arm: str, values: Mapping[str, float], seed: int
) -> list[Cell]:
    """The run of an arm on all tasks at once, where the study has one."""
    if study.joint is None:
        return []
    own = described(study, study.joint, arm)
    together = sum(steps_of(described(study, entry, arm), arm, values) for entry in study.tasks.values())
    steps = steps_of(own, arm, values) if "steps" in study.joint.set else together
    return [evaluated(cell(own, arm, values, seed, steps), evaluations, f"{arm}-joint")]


def start(study: ContinualStudy, evaluations: Sequence[Column]) -> Cell:
    """The evaluations of the model that all start from."""
    arm, entry = next(iter(study.arms)), next(iter(study.tasks.values()))
    return evaluated(cell(described(study, entry, arm), arm, {}, 0, 0), evaluations, "base")


def steps_of(study: Study, arm: str, values: Mapping[str, float]) -> int:
    """Steps of an arm on one task."""
    return run_config.load([settings_of(study, arm, values)])[0].steps


def evaluated(one: Cell, evaluations: Sequence[Column], label: str) -> Cell:
    """`one` with its settings written out, followed by these evaluations in place of its task's own."""
    tests = {"eval": {"tasks": {column.name: column.settings for column in evaluations}}}
    return replace(one, arm=label, settings=resolved(run_config.merge(one.settings, tests)))


def checked(study: ContinualStudy) -> str:
    """The model that all start from; a wrong setting of any task or arm must show before the first hour is spent."""
    models = set()
    for entry in [*study.tasks.values(), *([study.joint] if study.joint else [])]:
        for arm in study.arms:
            own = described(study, entry, arm)
            for values in grid(own, arm):
                run, _ = run_config.load([settings_of(own, arm, values)])
                list(make_task(run).stages())
                models.add(run.model.name)
    if len(models) > 1:
        raise ConfigError(f"the tasks start from different models ({', '.join(sorted(models))}): say model=NAME")
    return models.pop()
