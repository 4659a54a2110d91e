"""The run's configuration: layers of YAML files and arguments, decoded strictly into typed objects. No torch here.

Order, later wins: field defaults, configs/<task>.yaml, configs/<task>-<model>.yaml, `config=FILE`, the command line.
`config=NAME` is configs/<name>.yaml of the package: a variant of a task, which it names.
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib
import types as pytypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from mmpost.config import registry, source
from mmpost.config.parsing import parse_argument, parse_yaml, read_yaml
from mmpost.config.renamed import new_settings, old_settings, upgrade_config
from mmpost.config.settings import (
    CheckpointSettings,
    ComputeSettings,
    DataSettings,
    EvalSettings,
    LogSettings,
    ModelSettings,
    OptimSettings,
    Settings,
    StageSettings,
)
from mmpost.errors import ConfigError, MmpostError, PluginError

S = TypeVar("S", bound=BaseModel)
T = TypeVar("T")

OTHER_TRAINERS = {
    "num_generations": "task.num_generations",
    "n": "task.num_generations",
    "beta": "task.policy.beta",
    "kl_coef": "task.policy.beta",
    "learning_rate": "optim.lr",
    "max_steps": "steps",
    "per_device_train_batch_size": "task.prompts_per_step (over all ranks) and compute.max_tokens_per_microbatch",
    "gradient_accumulation_steps": "compute.max_tokens_per_microbatch",
    "max_completion_length": "task.sampling.max_tokens",
    "loss_type": "task.policy.loss_type",
    "freeze_vision_tower": "model.freeze=[vision]",
    "freeze_vit": "model.freeze=[vision]",
    "reward_funcs": "task.rewards",
    "output_dir": "out",
    "save_steps": "checkpoint.every",
    "save_interval": "checkpoint.every",
    "save_total_limit": "checkpoint.keep",
    "save.every": "checkpoint.every",
    "save.keep": "checkpoint.keep",
    "eval_steps": "eval.every",
    "warmup_ratio": "optim.warmup",
    "warmup_steps": "optim.warmup",
    "lr_scheduler_type": "optim.schedule",
    "early_stopping_patience": "optim.early_stopping_patience",
    "epsilon": "task.policy.clip_low",
    "epsilon_high": "task.policy.clip_high",
    "lora_r": "model.lora.rank",
    "lora_rank": "model.lora.rank",
    "lora_alpha": "model.lora.alpha",
    "model_name_or_path": "model",
    "max_pixels": "model.max_pixels",
    "min_pixels": "model.min_pixels",
}
"""Settings of other trainers and their equivalents here, by the last part of the key or by the whole key."""
MAX_SHOWN = 120
"""Characters of a user's key or value that a message repeats."""
MAX_MESSAGES = 10
"""Mistakes that one message names."""


ALLOWED_ON_RESUME = ("steps", "checkpoint", "log")
"""Settings that may change when a run is resumed."""


class RunConfig(Settings):
    """The configuration of a run, except its output folder."""

    task: dict[str, Any]
    """`task=NAME`; the task's own fields follow as `task.FIELD=VALUE` (`mmpost list NAME` shows them)."""
    model: ModelSettings = ModelSettings()
    """`model=NAME`, or its fields as `model.FIELD=VALUE`."""
    data: DataSettings = DataSettings()
    """Your own data instead of the task's."""
    rewards: dict[str, str] = {}
    """Additional rewards: `rewards.NAME=path.py:function`, or with a weight `path.py:function*0.5`."""
    select: dict[str, Any] = {}
    """Select samples before training: `select.by=rif`, `variance`, `difficulty` or file.py:Class, and its fields."""
    optim: OptimSettings = OptimSettings()
    """The optimizer of all stages; overrides the task's settings, and is overridden by `stages.NAME.optim`."""
    stages: dict[str, StageSettings] = {}
    """Overrides for single stages."""
    compute: ComputeSettings = ComputeSettings()
    """Speed and memory."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    """Checkpoints."""
    eval: EvalSettings = EvalSettings()
    """Evaluation."""
    log: LogSettings = LogSettings()
    """Logging."""
    steps: int = Field(default=100, ge=0)
    """Optimizer steps of the whole run, divided among its stages."""
    seed: int = 0
    """Random seed."""
    max_zero_gradient_steps: int = Field(default=20, ge=0)
    """Stop after this many consecutive steps without a gradient, since nothing is learned; 0: never."""


PROMPT_RECIPE_FIELDS = (
    *("system", "min_pixels", "max_pixels", "coordinates", "fps", "min_frames", "max_frames"),
    *("video_min_pixels", "video_max_pixels", "video_total_pixels", "positions"),
)
"""Fields of `model` that determine how prompts are built; a trained model keeps them."""


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, merged recursively.

    `model: x` is short for `model: {name: x}`, and so is `task: x`, here and in `eval.tasks`. A key `model` inside
    another section is taken literally.
    """
    return _merged(base, over, ("task", "model"))


def _merged(base: Mapping[str, Any], over: Mapping[str, Any], named: tuple[str, ...]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for layer in (base, over):
        for key, value in layer.items():
            if key in named and isinstance(value, str):
                value = {"name": value}
            old = out.get(key)
            within = old if isinstance(old, Mapping) else {}
            out[key] = _merged(within, value, ("task",)) if isinstance(value, Mapping) else value
    return out


def shipped(name: str) -> dict[str, Any]:
    """The mapping in configs/<name>.yaml of the package; empty if there is none."""
    file = resources.files("mmpost.configs").joinpath(f"{name}.yaml")
    if not os.path.isfile(str(file)):  # also False for a name that no file can have
        return {}
    return parse_yaml(file.read_text(), f"configs/{name}.yaml") or {}


def merged(arguments: Sequence[str | Mapping[str, Any]]) -> dict[str, Any]:
    """Arguments of a command, `key=value` texts or mappings, as one mapping; later ones take precedence."""
    overrides: dict[str, Any] = {}
    for argument in arguments:
        overrides = merge(overrides, parse_argument(argument) if isinstance(argument, str) else argument)
    return overrides


def load(arguments: Sequence[str | Mapping[str, Any]]) -> tuple[RunConfig, dict[str, str]]:
    """The resolved configuration, and the paths that are not part of it: `out` and `resume`.

    Raises ConfigError for a missing task, an unknown key (with its full path and the nearest valid one), and an
    invalid value.
    """
    overrides = merged(arguments)
    paths = {
        key: str(Path(str(overrides.pop(key))).expanduser())
        for key in ("out", "resume")
        if overrides.get(key) is not None
    }
    overrides = {key: value for key, value in overrides.items() if value is not None}
    if "resume" in paths:
        overrides["config"] = _config_to_resume(paths, overrides)
    file = overrides.pop("config", None)
    if file is not None:
        overrides = merge(_read_config(Path(str(file))), overrides)
    task = overrides.get("task", {}).get("name") if isinstance(overrides.get("task"), Mapping) else None
    if not isinstance(task, str):
        raise ConfigError("wanted task=NAME, found no task; `mmpost list` shows all tasks")
    _require_short(task, "task")
    base = shipped(task)
    model = str(merge(base, overrides).get("model", {}).get("name", ModelSettings().name))
    _require_short(model, "model")
    trained = run_of(model)
    model = str(trained.get("model", {}).get("base_model") or trained.get("model", {}).get("name") or model)
    if re.fullmatch(r"[\w-]+", model):
        base = merge(base, shipped(f"{task}-{model.removeprefix('random-')}"))
    if trained:
        base = merge(base, _inherited(trained, task))
    return decode(RunConfig, merge(base, overrides)), paths


def _require_short(name: str, key: str) -> None:
    """Raise ConfigError for what no file system accepts as a path."""
    if max(map(len, name.split("/"))) > 250 or len(name) > 4000:
        raise ConfigError(f"{key}: wanted a name or path, found {_short_repr(name)}, of {len(name)} characters")


def _read_config(path: Path) -> dict[str, Any]:
    """The mapping in a file, or in configs/<path>.yaml; old names are upgraded in a file that a run stored."""
    if not path.is_file():
        document = shipped(str(path)) if re.fullmatch(r"\w+", str(path)) else {}
        if not document:
            raise ConfigError(f"config={path}: no such file")
        return document
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: wanted a mapping of settings, found {type(document).__name__}")
    stored = any((path.parent / name).exists() for name in ("checkpoints", "metrics.jsonl", "summary.json"))
    return upgrade_config(document) if stored else document


def run_of(name: str) -> dict[str, Any]:
    """The configuration of the run in the folder `name`; empty if it is not a run folder.

    Raises ConfigError for one without the names of its task and model.
    """
    file = Path(name) / "config.yaml"
    if not file.is_file() or not (file.parent / "checkpoints").is_dir():
        return {}
    run = _read_config(file)
    for key in ("task", "model"):
        section = run.get(key)
        if not isinstance(section, Mapping) or not isinstance(section.get("name"), str):
            raise ConfigError(f"{file} is damaged: wanted {key}.name, found {_short_repr(section)}; copy the run again")
    return run


def _inherited(trained: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Settings inherited from a trained model: prompt recipe, base model, and task settings if the task is the same."""
    model = trained["model"]
    inherited: dict[str, Any] = {"model": {k: model[k] for k in PROMPT_RECIPE_FIELDS if k in model}}
    inherited["model"]["base_model"] = model.get("base_model") or model["name"]
    if trained["task"]["name"] == task:
        inherited["task"] = trained["task"]
    return inherited


def _config_to_resume(paths: Mapping[str, str], overrides: Mapping[str, Any]) -> str:
    """The config.yaml of the run to resume. Raises ConfigError for arguments that would change the run."""
    path = Path(paths["resume"])
    run = path.parent.parent if path.parent.name == "checkpoints" else path
    if not (run / "config.yaml").is_file():
        raise ConfigError(f"resume={path}: wanted the folder of a run, found none with a config.yaml; correct the path")
    refused = sorted({*overrides, *(set(paths) - {"resume"})} - set(ALLOWED_ON_RESUME))
    if refused:
        raise ConfigError(
            f"resume= allows changes of {', '.join(ALLOWED_ON_RESUME)} only, found {', '.join(refused)}; to change it, "
            f"start a new run with config={run / 'config.yaml'}"
        )
    return str(run / "config.yaml")


def decode(settings: type[S], raw: Mapping[str, Any], prefix: str = "") -> S:
    """Decode `raw` as `settings`; pydantic's errors become ConfigErrors with full paths."""
    try:
        return settings.model_validate(raw)
    except ValidationError as e:
        valid = [prefix + path for path, _ in fields(settings)]
        if settings is RunConfig:
            valid += _task_paths(raw)
        raise ConfigError(_lines(e.errors(), lambda error: _explain(error, prefix, valid))) from None


def check_early(config: RunConfig) -> None:
    """Check without importing torch what is decoded late: settings of stages, keys of the task and of `eval.tasks`.

    Raises ConfigError for an unknown key or an invalid value, and PluginError for an unknown task.
    """
    for name, stage in config.stages.items():
        decode(OptimSettings, stage.optim, f"stages.{name}.optim.")
    _check_task_keys(config.task, "task.")
    for name, evaluated in config.eval.tasks.items():
        _check_task_keys(evaluated.task, f"eval.tasks.{name}.task.")


def _check_task_keys(task: Mapping[str, Any], prefix: str) -> None:
    """Look the keys up in the source of the task, which is not imported."""
    name = str(task.get("name"))
    registry.locate(name, "mmpost.tasks")
    try:
        module, task_class = source.task_source(name)
    except (PluginError, SyntaxError, ValueError):  # importing the file may find a class, or say what is wrong
        return
    unknown = list(source.unknown_keys(module, task_class, task_fields(task)))
    if unknown:
        valid = [f"{prefix}{s.path}" for s in source.settings(module, task_class)]
        raise ConfigError(_lines(unknown, lambda found: _unknown_key(prefix + ".".join(found[0]), found[1], valid)))


def task_fields(task: Mapping[str, Any]) -> dict[str, Any]:
    """The fields in a `task` section, without its name. Raises ConfigError for the task's data, which are elsewhere."""
    if "data" in task:
        raise ConfigError("unknown key task.data; data is a top-level section: data.train, data.test, ...")
    return {name: value for name, value in task.items() if name != "name"}


def _task_paths(raw: Mapping[str, Any]) -> list[str]:
    """The settings of the task that a configuration names, for hints; none for a task whose source cannot be read."""
    try:
        return [f"task.{s.path}" for s in source.settings(*source.task_source(raw["task"]["name"]))]
    except (
        MmpostError,
        SyntaxError,
        ValueError,
        KeyError,
        TypeError,
    ):  # what is wrong with the task is reported elsewhere
        return []


def _lines(mistakes: Sequence[T], explain: Callable[[T], str]) -> str:
    more = [f"and {len(mistakes) - MAX_MESSAGES} more"] if len(mistakes) > MAX_MESSAGES else []
    return "\n".join([*map(explain, mistakes[:MAX_MESSAGES]), *more])


def _explain(error: Mapping[str, Any], prefix: str, valid: Sequence[str]) -> str:
    path = prefix + ".".join(str(p) for p in error["loc"])
    if error["type"] != "extra_forbidden":
        message = error["msg"].removeprefix("Value error, ")
        return f"{_short(path)}: {message[:1].lower()}{message[1:]}, found {_short_repr(error.get('input'))}"
    return _unknown_key(path, error.get("input"), valid)


def _unknown_key(path: str, value: Any, valid: Sequence[str]) -> str:
    """What to write instead of an unknown key: the name that it has here, or the closest one."""
    last = path.rsplit(".", 1)[-1]
    for name in dict.fromkeys((path, path.lower())):
        renamed = [new for new in new_settings(name) if new in valid or path.startswith("stages.")]
        if renamed:
            return f"unknown key {_short(path)}: renamed to {renamed[0]}"
    for name in (path, last, path.lower(), last.lower()):
        if name in OTHER_TRAINERS:
            return f"unknown key {_short(path)}: use {OTHER_TRAINERS[name]}"
    if isinstance(value, Mapping) and value:  # for a whole section, suggest the name of its first setting
        key, inner = next(iter(value.items()))
        return _unknown_key(f"{path}.{key}", inner, valid)
    old_names = {old: new for old, new in old_settings().items() if new in valid}
    close = difflib.get_close_matches(path.lower()[:MAX_SHOWN], [*valid, *old_names], n=1, cutoff=0.5)
    if close:
        return f"unknown key {_short(path)}; did you mean {old_names.get(close[0], close[0])}?"
    parent = path.rpartition(".")[0]
    siblings = [name for name in valid if name.rpartition(".")[0] == parent] or [n for n in valid if "." not in n]
    return f"unknown key {_short(path)}" + (f"; there are {', '.join(siblings)}" if siblings else "")


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _short_repr(value: Any) -> str:
    """A value as it was written, but not longer than a line."""
    if isinstance(value, int) and value.bit_length() > MAX_SHOWN:  # Python refuses to print very large ones
        return f"a number of {value.bit_length()} bits"
    return _short(repr(value) if isinstance(value, str | int | float | None) else reprlib.repr(value))


def fields(settings: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """Dotted paths of all fields, sections included."""
    for name, info in settings.model_fields.items():
        yield name, info
        for section in _sections(info.annotation):
            yield from ((f"{name}.{rest}", inner) for rest, inner in fields(section))


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) in (Union, pytypes.UnionType):
        return [s for a in get_args(annotation) for s in _sections(a)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def stage_optim(config: RunConfig, name: str, task_optim: Mapping[str, Any]) -> OptimSettings:
    """The optimizer settings of one stage: defaults < the task's < the user's `optim` < `stages.<name>.optim`."""
    user_optim = {k: getattr(config.optim, k) for k in config.optim.model_fields_set}
    stage_overrides = config.stages[name].optim if name in config.stages else {}
    return decode(OptimSettings, {**task_optim, **user_optim, **stage_overrides}, f"stages.{name}.optim.")
