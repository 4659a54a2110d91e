"""Models made here: an architecture with random weights, or a base trained from one on first use and kept."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import filelock
import tokenizers
import torch
import transformers

from mmpost.config import parsing, registry, run_config
from mmpost.config.settings import Settings
from mmpost.errors import ConfigError, TrainError
from mmpost.runs import checkpoint, code_hash
from mmpost.types import Task

TORCHRUN = (
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "ROLE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
"""What makes a process one of several; a base is trained by one, before any process group exists."""


def cache_dir() -> Path:
    """Where bases are kept: MMPOST_CACHE, else mmpost/ in the user's cache folder."""
    root = os.environ.get("MMPOST_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmpost"
    return Path(root)


def resolve(name: str, seed: int) -> str:
    """A folder or hub id that transformers loads, for the `model.name` of a configuration.

    A name with a file in configs/bases/ is trained by that run the first time (other processes wait), and found again
    by the hash of its recipe: the configuration, the code of its task, data and architecture, and the versions of
    the libraries that decide the numbers. `random-<architecture>` is that architecture with fresh weights. A .yaml
    file, {model: NAME, ...}, describes a model of mmpost.models.NAME, which is written once for each content and seed.
    """
    recipe = run_config.shipped(f"bases/{name}")
    if recipe:
        return str(_trained(name, recipe))
    if Path(name).suffix in (".yaml", ".yml") and Path(name).is_file():
        return str(_described(Path(name), seed))
    if name.startswith("random-"):
        return str(_random(name.removeprefix("random-"), seed))
    known = sorted(f.name.removesuffix(".yaml") for f in resources.files("mmpost.configs").joinpath("bases").iterdir())
    if "/" not in name and not Path(name).exists() and (close := difflib.get_close_matches(name, known, n=1)):
        raise ConfigError(f"model={name}: no base, folder or run of that name; did you mean {close[0]}?")
    return checkpoint.resolve_weights(name)


def _trained(name: str, recipe: dict[str, Any]) -> Path:
    folder = cache_dir() / "bases" / f"{name}-{_key(recipe)}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{folder}.lock"):
        if not folder.exists():
            aside = folder.with_name(f".{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            print(f"model={name}: training its base once, into {folder}", file=sys.stderr)
            _train(recipe, aside)
            aside.rename(folder)
    return Path(checkpoint.resolve_weights(str(folder)))


def _train(recipe: dict[str, Any], folder: Path) -> None:
    """Train the run in a process of its own, which leaves this one's random numbers, memory and ranks alone."""
    file = folder.with_name(f"{folder.name}.yaml")
    file.write_text(parsing.dump(recipe))
    command = [sys.executable, "-m", "mmpost.cli", "train", f"config={file}", f"out={folder}"]
    environment = {k: v for k, v in os.environ.items() if k not in TORCHRUN and not k.startswith("TORCHELASTIC")}
    done = subprocess.run(command, env=environment, check=False)
    file.unlink()
    if done.returncode:
        raise TrainError(f"training the base failed with exit code {done.returncode}; its messages stand above")


def _described(file: Path, seed: int) -> Path:
    text = file.read_text(encoding="utf-8")
    about: dict[str, Any] = parsing.parse_yaml(text, str(file))
    name = about.pop("model", "")
    write = getattr(registry.module(str(name), "mmpost.models"), "write_from_spec", None)
    if write is None:
        raise ConfigError(
            f"{file}: wanted {{model: NAME, ...}} of a module that can be described, found model: {name!r}"
        )
    versions = [f"{m.__name__} {m.__version__}" for m in (torch, transformers)]
    return _written(f"{file.stem}-{seed}-{_digest([text, *versions])}", lambda folder: write(folder, about, seed))


def _random(architecture: str, seed: int) -> Path:
    writer = _writer(architecture)
    name = f"{architecture}-{seed}-{_digest(_made_of(writer.__module__))}"
    return _written(name, lambda folder: writer(folder, seed=seed))


def _written(name: str, write: Callable[[Path], object]) -> Path:
    """The folder of this name among those that are written once."""
    folder = cache_dir() / "random" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{folder}.lock"):
        if not folder.exists():
            aside = folder.with_name(f".{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            write(aside)
            aside.rename(folder)
    return folder


def _writer(architecture: str) -> Callable[..., Any]:
    """The function `write_<architecture>` of mmpost.models.builtin, where a dash is an underscore."""
    package = "mmpost.models.builtin"
    known = {
        name.removeprefix("write_").replace("_", "-"): module
        for module, name, _ in registry.definitions(package)
        if name.startswith("write_")
    }
    if architecture not in known:
        raise ConfigError(f"model=random-{architecture}: no such architecture; there are {', '.join(sorted(known))}")
    return getattr(registry.module(known[architecture], package), f"write_{architecture.replace('-', '_')}")


def _key(recipe: dict[str, Any]) -> str:
    run, _ = run_config.load([recipe])
    kind = registry.exported(registry.module(run.task["name"], "mmpost.tasks"), Task)
    task = run_config.decode(kind, {k: v for k, v in run.task.items() if k != "name"}, "task.")
    architecture = _writer(run.model.name.removeprefix("random-")).__module__
    libraries = [torch, transformers, tokenizers]
    return _digest(
        [json.dumps(_settings(run), sort_keys=True), json.dumps(_settings(task), sort_keys=True, default=str)]
        + _made_of(kind.__module__, architecture)
        + [f"{m.__name__} {m.__version__}" for m in libraries]
    )


def _made_of(*modules: str) -> list[str]:
    """The source of these modules, and of the tasks, data and tiny models that they import.

    What reads anybody's data is left out: a base need not be trained again because a new file format can be opened.
    """
    own = code_hash.imported_files(
        map(code_hash.source, modules), within=("mmpost.tasks.", "mmpost.data.", "mmpost.models.builtin")
    )
    readers = code_hash.imported_files([code_hash.source("mmpost.data.readers.user_data")], within=("mmpost.data.",))
    return [file.read_text(encoding="utf-8") for file in own if file not in readers]


def _settings(settings: Settings) -> dict[str, Any]:
    """What decides the weights. Sections on data that nobody set say nothing: a new field there changes no key."""
    fields = type(settings).model_fields
    unset = {name for name in ("data", "select") if name in fields and getattr(settings, name) == fields[name].default}
    return settings.model_dump(mode="json", exclude={"log", "eval", "checkpoint", *unset})


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
