"""Which code decides a run's numbers: the modules that the loop and a task import, and a hash over them."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "numpy")
SILENT = ("mmpost.listeners", "mmpost.report", "mmpost.checks", "mmpost.probe")
"""What only shows results."""


def fingerprint(task_file: str) -> str:
    """SHA-256 over mmpost.run, mmpost.selection, the task, what of mmpost these import, and the libraries."""
    starts = (source("mmpost.run"), source("mmpost.selection"), Path(task_file))
    todo = [path for path in starts if path is not None]
    seen: set[Path] = set()
    while todo:
        path = todo.pop().resolve()
        if path not in seen:
            seen.add(path)
            todo += [found for name in imported(path) if (found := source(name)) is not None]
    texts = [path.read_text(encoding="utf-8") for path in sorted(seen)]
    versions = [f"{name} {metadata.version(name)}" for name in LIBRARIES]
    return hashlib.sha256("\0".join([*texts, *versions]).encode()).hexdigest()[:16]


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
