"""The run's configuration: YAML files and `key=value` words, decoded strictly into typed objects. No torch here.

Order, later wins: field defaults, configs/<task>.yaml, configs/<task>-<model>.yaml, `config=FILE`, the command line.
"""

from __future__ import annotations

import difflib
import re
import types as pytypes
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

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
from mmpost.errors import ConfigError

S = TypeVar("S", bound=BaseModel)

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
    "eval_steps": "eval.every",
    "model_name_or_path": "model",
    "max_pixels": "model.max_pixels",
    "min_pixels": "model.min_pixels",
}
"""What users of other trainers type, and the name here."""


ALLOWED_ON_RESUME = ("steps", "checkpoint", "log")
"""Sections that may change when a run goes on."""


class RunConfig(Settings):
    """Everything that decides a run, besides where it is written."""

    task: dict[str, Any]
    """`task=NAME`; the task's own fields follow as `task.FIELD=VALUE` (`mmpost list NAME` shows them)."""
    model: ModelSettings = ModelSettings()
    """`model=NAME`, or its fields as `model.FIELD=VALUE`."""
    data: DataSettings = DataSettings()
    """Your own data in place of the task's."""
    rewards: dict[str, str] = {}
    """More rewards for what is scored: `rewards.NAME=path.py:function`, or with a weight `path.py:function*0.5`."""
    select: dict[str, Any] = {}
    """Measure samples, train on the fit ones: `select.by=rif`, `variance`, `difficulty`, file.py:Class; its fields."""
    optim: OptimSettings = OptimSettings()
    """For all stages; what a task or `stages.NAME.optim` says of one stage comes on top as described there."""
    stages: dict[str, StageSettings] = {}
    """Changes for single stages."""
    compute: ComputeSettings = ComputeSettings()
    """Speed and memory."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    """Saving."""
    eval: EvalSettings = EvalSettings()
    """Evaluation."""
    log: LogSettings = LogSettings()
    """Logging."""
    steps: int = Field(default=100, ge=0)
    """Optimiser steps of the whole run, shared out among its stages."""
    seed: int = 0
    """Seed of everything random."""
    max_zero_gradient_steps: int = Field(default=20, ge=0)
    """Stop after that many steps in a row without any gradient, when nothing can be learnt; 0: never."""


TEXT_KEYS = ("out", "resume", "config", "task", "task.name", "model", "model.name")
"""Words whose value is a name or path, whatever it looks like."""


PROMPT_RECIPE_FIELDS = (
    *("system", "min_pixels", "max_pixels", "coordinates", "fps", "min_frames", "max_frames"),
    *("video_min_pixels", "video_max_pixels", "video_total_pixels", "positions"),
)
"""Fields of `model` that decide how prompts are made: a trained model brings them with it."""


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of version 1.2: `off`, `no` and `1:30` are text, `1e-6` is a number."""

    yaml_implicit_resolvers: dict[str, Any] = {}


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    """A leading zero is just a zero (version 1.1 made it octal)."""
    text = str(loader.construct_scalar(node))
    return int(text, 16 if "x" in text else 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def parse_yaml(text: str, where: str) -> Any:
    """The YAML document in `text`; raises ConfigError with `where` and the line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as e:
        raise ConfigError(f"{where} is not valid YAML: {e}") from e


def parse_argument(word: str) -> dict[str, Any]:
    """One `a.b=value` of the command line as a nested mapping."""
    key, sep, value = word.partition("=")
    if not sep or not key:
        raise ConfigError(f"expected key=value, found {word!r}; write it as e.g. optim.lr=1e-6")
    if key in TEXT_KEYS:
        return nest(key, value)
    try:
        parsed = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError:
        parsed = value
    if isinstance(parsed, dict | list) and value.lstrip()[:1] not in ("{", "["):
        parsed = value  # text with a colon or dash in it
    return nest(key, parsed)


def nest(key: str, value: Any) -> dict[str, Any]:
    """{"a.b": v} as {"a": {"b": v}}."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, two configurations; mappings are merged.

    `model: x` means its name, and so does `task: x`, here and in `eval.tasks`; a section's own `model` is what it is.
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
    """The mapping in configs/<name>.yaml of the package; empty where there is none."""
    file = resources.files("mmpost.configs").joinpath(f"{name}.yaml")
    if not file.is_file():
        return {}
    return parse_yaml(file.read_text(), f"configs/{name}.yaml") or {}


def load(words: Sequence[str | Mapping[str, Any]]) -> tuple[RunConfig, dict[str, str]]:
    """The resolved configuration, and the words about the run that are not part of it (`out`, `resume`).

    Raises ConfigError: a missing task, an unknown key (with its full path and the nearest valid one), a value that
    does not fit.
    """
    given: dict[str, Any] = {}
    for word in words:
        given = merge(given, parse_argument(word) if isinstance(word, str) else word)
    aside = {
        key: str(Path(str(given.pop(key))).expanduser()) for key in ("out", "resume") if given.get(key) is not None
    }
    given = {k: v for k, v in given.items() if v is not None}
    if "resume" in aside:
        given["config"] = _of_run(aside, given)
    file = given.pop("config", None)
    if file is not None:
        path = Path(str(file))
        if not path.is_file():
            raise ConfigError(f"config={file}: no such file")
        document = parse_yaml(path.read_text(), str(path))
        if not isinstance(document, dict):
            raise ConfigError(f"{path}: expected a mapping of settings, found {type(document).__name__}")
        given = merge(document, given)
    name = given.get("task", {}).get("name") if isinstance(given.get("task"), Mapping) else None
    if not isinstance(name, str):
        raise ConfigError("no task: say task=NAME; `mmpost list` shows them")
    base = shipped(name)
    model = str(merge(base, given).get("model", {}).get("name", ModelSettings().name))
    trained = run_of(model)
    model = str(trained.get("model", {}).get("base_model") or trained.get("model", {}).get("name") or model)
    if re.fullmatch(r"[\w-]+", model):
        base = merge(base, shipped(f"{name}-{model.removeprefix('random-')}"))
    if trained:
        base = merge(base, _recipe(trained, name))
    return decode(RunConfig, merge(base, given)), aside


def run_of(name: str) -> dict[str, Any]:
    """The configuration of the run that a model's name stands for; empty where it is no run folder."""
    folder = Path(name)
    if not (folder / "config.yaml").is_file() or not (folder / "checkpoints").is_dir():
        return {}
    return parse_yaml((folder / "config.yaml").read_text(), str(folder / "config.yaml"))


def _recipe(trained: Mapping[str, Any], task: str) -> dict[str, Any]:
    """What a trained model brings with it: how its prompts are made, where it comes from, its own task's settings."""
    model = trained["model"]
    out: dict[str, Any] = {"model": {k: model[k] for k in PROMPT_RECIPE_FIELDS if k in model}}
    out["model"]["base_model"] = model.get("base_model") or model["name"]
    if trained["task"]["name"] == task:
        out["task"] = trained["task"]
    return out


def _of_run(aside: Mapping[str, str], given: Mapping[str, Any]) -> str:
    """The configuration of the run to resume; refuses words that would make it another run."""
    path = Path(aside["resume"])
    run = path.parent.parent if path.parent.name == "checkpoints" else path
    if not (run / "config.yaml").is_file():
        raise ConfigError(f"resume={path}: no run there (it would have a config.yaml); name its folder")
    other = sorted({*given, *(set(aside) - {"resume"})} - set(ALLOWED_ON_RESUME))
    if other:
        raise ConfigError(
            f"resume takes {', '.join(ALLOWED_ON_RESUME)} besides, found {', '.join(other)}: that would be another "
            f"run; start one with config={run / 'config.yaml'}"
        )
    return str(run / "config.yaml")


def parse_arguments(given: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """The key=value words of a command that takes only the keys `known`; raises ConfigError for any other."""
    found: dict[str, str] = {}
    for word in given:
        key, sep, value = word.partition("=")
        if not sep or key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise ConfigError(
                f"unknown word {word!r}; this command takes {', '.join(known)}; did you mean {close[0]}=?"
            )
        found[key] = value
    return found


def decode(kind: type[S], raw: Mapping[str, Any], prefix: str = "") -> S:
    """`raw` as an object of `kind`; pydantic's complaints become ConfigErrors with full paths."""
    try:
        return kind.model_validate(raw)
    except ValidationError as e:
        raise ConfigError("\n".join(_explain(kind, error, prefix) for error in e.errors())) from None


def _explain(kind: type[BaseModel], error: Mapping[str, Any], prefix: str) -> str:
    path = prefix + ".".join(str(p) for p in error["loc"])
    if error["type"] != "extra_forbidden":
        said = error["msg"].removeprefix("Value error, ")
        return f"{path}: {said[:1].lower()}{said[1:]}, found {error.get('input')!r}"
    last = path.rsplit(".", 1)[-1]
    valid = [prefix + path for path, _ in fields(kind)]
    if last in OTHER_TRAINERS:
        return f"unknown key {path}: here it is {OTHER_TRAINERS[last]}"
    close = difflib.get_close_matches(path, valid, n=1, cutoff=0.0)
    if isinstance(error.get("input"), Mapping):  # a whole section: name its first leaf's nearest, not a section's
        leaf = f"{path}.{next(iter(error['input']), '')}"
        path, close = leaf, difflib.get_close_matches(leaf, valid, n=1, cutoff=0.0)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"unknown key {path}{hint}"


def fields(kind: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """Dotted paths of all fields, sections included."""
    for name, info in kind.model_fields.items():
        yield name, info
        for section in _sections(info.annotation):
            yield from ((f"{name}.{rest}", inner) for rest, inner in fields(section))


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) in (Union, pytypes.UnionType):
        return [s for a in get_args(annotation) for s in _sections(a)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def stage_optim(config: RunConfig, name: str, of_task: Mapping[str, Any]) -> OptimSettings:
    """The optimiser settings of one stage: defaults < the task's < the user's `optim` < `stages.<name>.optim`."""
    theirs = {k: getattr(config.optim, k) for k in config.optim.model_fields_set}
    own = config.stages[name].optim if name in config.stages else {}
    return decode(OptimSettings, {**of_task, **theirs, **own}, f"stages.{name}.optim.")


def dump(value: Mapping[str, Any]) -> str:
    """YAML text that `parse_yaml` reads back equal."""
    return yaml.safe_dump(_plain(value), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in value]
    return value
