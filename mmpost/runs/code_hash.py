"""Which code decides a run's numbers: the modules that the loop and a task import, and a hash over them."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "numpy")
SILENT = ("mmpost.listeners", "mmpost.report", "mmpost.checks", "mmpost.training.media_probe")
"""What only shows results."""


def fingerprint(*task_files: str) -> str:
    """SHA-256 over the run, the selection, the tasks, all modules of mmpost that they import, and library versions."""
    files = imported_files([source("mmpost.runs.run"), source("mmpost.selection.attach"), *map(Path, task_files)])
    texts = [path.read_text(encoding="utf-8") for path in files]
    versions = [f"{name} {metadata.version(name)}" for name in LIBRARIES]
    return hashlib.sha256("\0".join([*texts, *versions]).encode()).hexdigest()[:16]


def imported_files(starts: Iterable[Path | None], within: tuple[str, ...] = ("mmpost.",)) -> list[Path]:
    """These files, and the modules that they import, and so on; only modules whose names start with one of `within`."""
    todo = [path for path in starts if path is not None]
    seen: set[Path] = set()
    while todo:
        path = todo.pop().resolve()
        if path not in seen:
            seen.add(path)
            todo += [
                found for name in imported(path) if name.startswith(within) and (found := source(name)) is not None
            ]
    return sorted(seen)


def imported(path: Path) -> Iterator[str]:
    """Modules of mmpost that a file imports, wherever in it; `from a import b` may mean the module a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.startswith("mmpost.") and not name.startswith(SILENT))


def source(name: str) -> Path | None:
    """The file of a module; None where the name is no module."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # a name inside a module that is no package
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None else None
