"""Old names: upgraded silently in stored files of runs; typed by a user, they are an error with the new name.

The table is `renamed.yaml`, documented in `docs/renamed.md`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from typing import Any

import yaml

Table = Mapping[str, Any]


@functools.cache
def tables() -> Table:
    """The tables of renamed.yaml by name: modules, tasks, models, settings, task_settings, classes, fields, ..."""
    text = resources.files("mmpost.config").joinpath("renamed.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def new_settings(path: str) -> list[str]:
    """The possible new names of an old setting; for fields of tasks they depend on the task.

    >>> new_settings("optim.clip")
    ['optim.max_grad_norm']
    """
    if path.startswith("task."):
        field = path.removeprefix("task.")
        names = (fields.get(field) for fields in tables()["task_settings"].values())
        return [f"task.{name}" for name in names if name]
    parts = path.split(".")
    if parts[0] == "stages" and len(parts) > 2:
        rest = ".".join(parts[2:])
        names = {"share": "fraction", **_section("optim", "optim.")}
        return [f"stages.{parts[1]}.{names[rest]}"] if rest in names else []
    new = tables()["settings"].get(path)
    return [new] if new else []


def old_settings() -> dict[str, str]:
    """Old settings of a run and of tasks, with their new names."""
    settings = {old: new for old, new in tables()["settings"].items() if "<" not in old}
    tasks = {old: new for fields in tables()["task_settings"].values() for old, new in fields.items()}
    return {**settings, **{f"task.{old}": f"task.{new}" for old, new in tasks.items()}}


def upgrade_config(document: Mapping[str, Any]) -> dict[str, Any]:
    """The stored configuration of a run (config.yaml) with the current names."""
    config = _nested(document)
    if "stop_if_flat" not in config:
        # A stored config.yaml has every setting, so this one was written after the renaming. It must not change: a
        # user's task may have a field with one of the old names.
        return config
    task = _upgrade_task(config)
    for old, new in tables()["settings"].items():
        if "<" not in old:
            _move(config, old, new)
    for stage in config.get("stages", {}).values():
        for old, new in {"share": "fraction", **_section("optim", "optim.")}.items():
            _move(stage, old, new)
    for evaluated in config.get("eval", {}).get("tasks", {}).values():
        _upgrade_task(evaluated)
        for old, new in _section("data").items():
            _move(evaluated.get("data", {}), old, new)
    return {**config, "task": task} if "task" in config else config


def upgrade_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a checkpoint (trainer/state.json) with the current names."""
    names = tables()["files"]["checkpoint (trainer/state.json, cursor)"]
    if not isinstance(state.get("cursor"), Mapping):
        return dict(state)  # damaged, which resuming refuses
    cursor = {names.get(name, name): value for name, value in state["cursor"].items()}
    return {**state, "cursor": cursor}


def upgrade_part(part: Mapping[str, Any]) -> dict[str, Any]:
    """A stored part of a prompt or reply with the current names."""
    names = tables()["fields"]["Part"]
    return {names.get(name, name): value for name, value in part.items()}


def upgrade_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The content of mmpost_model.json with the current names."""
    upgraded = _nested(spec)
    for old, new in tables()["files"]["embedding model (mmpost_model.json)"].items():
        _move(upgraded, old, new)
    if "model" in upgraded:
        upgraded["model"] = tables()["models"].get(upgraded["model"], upgraded["model"])
    return upgraded


def upgrade_described(value: Any) -> Any:
    """A recording's description of its transforms (`mmpost.selection.recording.described`) with the current names."""
    if isinstance(value, list):
        return [upgrade_described(item) for item in value]
    if isinstance(value, str):
        return _upgrade_qualified(value)
    if not isinstance(value, Mapping):
        return value
    upgraded = {name: upgrade_described(item) for name, item in value.items()}
    if "class" in value:
        name = tables()["classes"].get(value["class"], value["class"])
        fields = tables()["fields"].get(name, {})
        upgraded = {fields.get(field, field): item for field, item in upgraded.items()} | {"class": name}
    return upgraded


def _upgrade_qualified(name: str) -> str:
    """The current form of a function's module and qualified name, such as mmpost.tasks.digits_base.thoughtful."""
    if not name.startswith("mmpost."):
        return name
    parts = name.removeprefix("mmpost.").split(".")
    for end in range(len(parts), 0, -1):
        module = tables()["modules"].get(".".join(parts[:end]))
        if module is not None and "," not in module:
            return ".".join(["mmpost", module, *parts[end:]])
    return name


def _upgrade_task(config: dict[str, Any]) -> Any:
    task = config.get("task")
    if isinstance(task, str):
        config["task"] = tables()["tasks"].get(task, task)
    elif isinstance(task, dict):
        name = str(task.get("name", ""))
        task["name"] = tables()["tasks"].get(name, name)
        fields = tables()["task_settings"]
        for old, new in {**fields["*"], **fields.get(task["name"], {})}.items():
            _move(task, old, new)
    return config.get("task")


def _section(name: str, prefix: str = "") -> dict[str, str]:
    """The renamed settings of one section, with `prefix` in place of the section's name."""
    start = f"{name}."
    return {
        f"{prefix}{old.removeprefix(start)}": f"{prefix}{new.removeprefix(start)}"
        for old, new in tables()["settings"].items()
        if old.startswith(start)
    }


def _move(config: dict[str, Any], old: str, new: str) -> None:
    """Move config[old] to config[new] (dotted paths with the same parent), keeping the order of keys."""
    *parents, name = old.split(".")
    target = new.split(".")[-1]
    section: Any = config
    for parent in parents:
        section = section.get(parent) if isinstance(section, dict) else None
    if isinstance(section, dict) and name in section and target not in section:
        items = [(target if key == name else key, value) for key, value in section.items()]
        section.clear()
        section.update(items)


def _nested(value: Any) -> Any:
    """A deep copy with plain dictionaries."""
    if isinstance(value, Mapping):
        return {key: _nested(item) for key, item in value.items()}
    return [_nested(item) for item in value] if isinstance(value, list) else value
