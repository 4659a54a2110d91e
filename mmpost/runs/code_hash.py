"""A hash of the code that a run's results depend on: the modules that the run and its task import."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from mmpost.config.exports import EXPORTS

LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "numpy")
EXCLUDED = ("mmpost.listeners", "mmpost.report", "mmpost.checks", "mmpost.training.media_probe")
"""Packages and modules that only report or check results."""


def fingerprint(*task_files: str) -> str:
    """A short SHA-256 over the sources of the run, of data selection and of tasks, and over library versions.

    All modules of mmpost that these sources import are included, except `EXCLUDED`.
    """
    files = imported_files([source("mmpost.runs.run"), source("mmpost.selection.attach"), *map(Path, task_files)])
    texts = [path.read_text(encoding="utf-8") for path in files]
    versions = [f"{name} {metadata.version(name)}" for name in LIBRARIES]
    return hashlib.sha256("\0".join([*texts, *versions]).encode()).hexdigest()[:16]


def imported_files(starts: Iterable[Path | None], within: tuple[str, ...] = ("mmpost.",)) -> list[Path]:
    """These files and all modules that they import, directly or not, whose names start with one of `within`; sorted."""
    pending = [path for path in starts if path is not None]
    seen: set[Path] = set()
    while pending:
        path = pending.pop().resolve()
        if path not in seen:
            seen.add(path)
            pending += [
                file for name in imported(path) if name.startswith(within) and (file := source(name)) is not None
            ]
    return sorted(seen)


def imported(path: Path) -> Iterator[str]:
    """Modules of mmpost that a file imports anywhere, also inside functions.

    `from a import b` yields a and a.b, which may or may not be a module. After `import mmpost as mp`, an attribute of
    `mp` yields the module that defines it.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    facades = {alias.asname or alias.name for alias in imports if alias.name == "mmpost"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in facades:
            names = [EXPORTS.get(node.attr, "")]
        else:
            continue
        yield from (name for name in names if name.startswith("mmpost.") and not name.startswith(EXCLUDED))


def source(name: str) -> Path | None:
    """The file of a module; None if there is no such module."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # the parent is a module, not a package
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None else None
