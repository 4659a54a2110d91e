"""Built-in models: an architecture with random weights, or a base trained from one on first use and cached."""

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
from mmpost.core.run_files import wait_until_free
from mmpost.errors import ConfigError, TrainError
from mmpost.runs import checkpoint, code_hash
from mmpost.types import Task

TORCHRUN_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "ROLE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
"""Variables of a torchrun rank; they are removed, because a base is trained by a single process."""


def cache_dir() -> Path:
    """The cache folder for models: MMPOST_CACHE, by default mmpost/ in the user's cache folder."""
    root = os.environ.get("MMPOST_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmpost"
    return Path(root)


def resolve(name: str, seed: int, base_seed: int = 0) -> str:
    """Resolve `model.name` to a folder or hub id that can be loaded.

    Raises ConfigError for an unknown name, and for a `base_seed` (not 0) of anything but a base.

    - The name of a file in configs/bases/: a base, trained with that configuration and the seed `base_seed` on first
      use while other processes wait, and cached by a hash of the configuration, of the code of its task, data and
      architecture, and of library versions.
    - `random-<architecture>`: a built-in architecture with random weights, which depend on `seed`.
    - A .yaml file {model: NAME, ...}: a model that mmpost.models.NAME builds, cached by its content and `seed`.
    - A run folder: its newest checkpoint. Anything else is returned unchanged.
    """
    recipe = run_config.shipped(f"bases/{name}")
    if recipe:
        return str(_trained(name, _seeded(recipe, base_seed)))
    if base_seed:
        raise ConfigError(f"model.base_seed={base_seed}: wanted a built-in base, found model={name}; remove it")
    if Path(name).suffix in (".yaml", ".yml") and os.path.isfile(name):
        return str(_described(Path(name), seed))
    if name.startswith("random-"):
        return str(_random(name.removeprefix("random-"), seed))
    known = sorted(f.name.removesuffix(".yaml") for f in resources.files("mmpost.configs").joinpath("bases").iterdir())
    if "/" not in name and not os.path.exists(name) and (close := difflib.get_close_matches(name, known, n=1)):
        raise ConfigError(f"model={name}: found no base, folder or run of this name; did you mean {close[0]}?")
    return checkpoint.resolve_weights(name)


def identity(name: str, base_seed: int) -> str:
    """What a base will be, without training it: its name and cache key. Empty for anything else."""
    recipe = run_config.shipped(f"bases/{name}")
    return f"{name}-{_key(_seeded(recipe, base_seed))}" if recipe else ""


def trained_hash(identity: str) -> str:
    """The hash of the weights of a base by its `identity`; empty if it has not been trained here."""
    folder = cache_dir() / "bases" / identity
    return checkpoint.weights_hash(checkpoint.resolve_weights(str(folder))) if identity and folder.exists() else ""


def _seeded(recipe: dict[str, Any], seed: int) -> dict[str, Any]:
    return {**recipe, "seed": seed} if seed else recipe


def _trained(name: str, recipe: dict[str, Any]) -> Path:
    folder = cache_dir() / "bases" / f"{name}-{_key(recipe)}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{folder}.lock"):
        if not folder.exists():
            # Renamed when complete, so that an interrupted training leaves no incomplete base.
            partial = folder.with_name(f".{folder.name}")
            wait_until_free(partial)
            shutil.rmtree(partial, ignore_errors=True)
            print(f"model={name}: training this base once, cached in {folder}", file=sys.stderr)
            _train(recipe, partial)
            partial.rename(folder)
    return Path(checkpoint.resolve_weights(str(folder)))


def _train(recipe: dict[str, Any], folder: Path) -> None:
    """Train in a separate process, so that random state, memory and ranks of this one are unaffected.

    It ends with this one, so that none goes on in a folder that others take for abandoned.
    """
    file = folder.with_name(f"{folder.name}.yaml")
    file.write_text(parsing.dump(recipe))
    started_by = f"--started-by={os.getpid()}"
    command = [sys.executable, "-m", "mmpost.cli", "train", started_by, f"config={file}", f"out={folder}"]
    environment = {
        k: v for k, v in os.environ.items() if k not in TORCHRUN_VARIABLES and not k.startswith("TORCHELASTIC")
    }
    done = subprocess.run(command, env=environment, check=False)
    file.unlink()
    if done.returncode:
        raise TrainError(f"training the base failed with exit code {done.returncode}; see its messages above")


def _described(file: Path, seed: int) -> Path:
    spec: Any = parsing.read_yaml(file)
    name = spec.pop("model", "") if isinstance(spec, dict) else ""
    write = getattr(registry.module(str(name), "mmpost.models"), "write_from_spec", None)
    if write is None:
        raise ConfigError(
            f"{file}: wanted {{model: NAME, ...}} with a module of mmpost.models with write_from_spec, found model: "
            f"{name!r}"
        )
    versions = [f"{m.__name__} {m.__version__}" for m in (torch, transformers)]
    digest = _digest([file.read_text(encoding="utf-8"), *versions])
    return _written(f"{file.stem}-{seed}-{digest}", lambda folder: write(folder, spec, seed))


def _random(architecture: str, seed: int) -> Path:
    writer = _writer(architecture)
    name = f"{architecture}-{seed}-{_digest(_sources(writer.__module__))}"
    return _written(name, lambda folder: writer(folder, seed=seed))


def _written(name: str, write: Callable[[Path], object]) -> Path:
    """The cached folder of this name, written by `write` if it does not exist."""
    folder = cache_dir() / "random" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{folder}.lock"):
        if not folder.exists():
            partial = folder.with_name(f".{folder.name}")
            shutil.rmtree(partial, ignore_errors=True)
            write(partial)
            partial.rename(folder)
    return folder


def _writer(architecture: str) -> Callable[..., Any]:
    """The function `write_<architecture>` of mmpost.models.builtin; dashes in the name become underscores."""
    package = "mmpost.models.builtin"
    known = {
        name.removeprefix("write_").replace("_", "-"): module
        for module, name, _ in registry.definitions(package)
        if name.startswith("write_")
    }
    if architecture not in known:
        raise ConfigError(f"model=random-{architecture}: no such architecture; available: {', '.join(sorted(known))}")
    return getattr(registry.module(known[architecture], package), f"write_{architecture.replace('-', '_')}")


def _key(recipe: dict[str, Any]) -> str:
    """The cache key of a base: a hash of everything that its weights depend on."""
    run, _ = run_config.load([recipe])
    task_class = registry.exported(registry.module(run.task["name"], "mmpost.tasks"), Task)
    task = run_config.decode(task_class, {k: v for k, v in run.task.items() if k != "name"}, "task.")
    architecture = _writer(run.model.name.removeprefix("random-")).__module__
    libraries = [torch, transformers, tokenizers]
    return _digest(
        [json.dumps(_settings(run), sort_keys=True), json.dumps(_settings(task), sort_keys=True, default=str)]
        + _sources(task_class.__module__, architecture)
        + [f"{m.__name__} {m.__version__}" for m in libraries]
    )


def _sources(*modules: str) -> list[str]:
    """The source code of these modules, and of the tasks, data and built-in models that they import.

    The readers of users' data are left out, so that support for another file format does not retrain the bases.
    """
    files = code_hash.imported_files(
        map(code_hash.source, modules), within=("mmpost.tasks.", "mmpost.data.", "mmpost.models.builtin")
    )
    readers = code_hash.imported_files([code_hash.source("mmpost.data.readers.user_data")], within=("mmpost.data.",))
    return [file.read_text(encoding="utf-8") for file in files if file not in readers]


def _settings(settings: Settings) -> dict[str, Any]:
    """The settings that the weights depend on.

    Data sections at their defaults are left out, so that a new field there does not retrain the bases.
    """
    fields = type(settings).model_fields
    unset = {name for name in ("data", "select") if name in fields and getattr(settings, name) == fields[name].default}
    return settings.model_dump(mode="json", exclude={"log", "eval", "checkpoint", *unset})


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
