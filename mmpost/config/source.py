"""The settings of a plug-in class, parsed from its source without importing it (or torch)."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from mmpost.config import registry
from mmpost.config.exports import EXPORTS
from mmpost.errors import PluginError

SETTINGS = "mmpost.config.settings"
"""The module of `Settings`, the base of all sections and tasks."""


@dataclass(frozen=True)
class Setting:
    """A field of a settings class."""

    path: str
    """Its name; dotted for a field of a nested section."""
    default: str
    """The expression in the source; empty for a section, or without a default."""
    doc: str
    """The string below the field, on one line."""


@dataclass(frozen=True)
class _Class:
    module: str
    node: ast.ClassDef


def task_source(name: str) -> tuple[str, str]:
    """The module of a task, and the name of its class; `name`: as in `task=NAME`.

    Raises PluginError if there is no such module, or no public class with stages in it.
    """
    module = registry.locate(name, "mmpost.tasks")
    public = [n for n in _tree(module).body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
    for node in public:
        statements = [statement for base in _mro(_Class(module, node)) for statement in base.node.body]
        if any(isinstance(s, ast.FunctionDef) and s.name == "stages" for s in statements):
            return module, node.name
    raise PluginError(f"{module}: wanted a public class derived from Task, found none")


def class_doc(module: str, name: str) -> str:
    """The docstring of a class; empty if there is none."""
    resolved = _resolve(module, name)
    return ast.get_docstring(resolved.node) or "" if resolved else ""


def settings(module: str, name: str) -> Iterator[Setting]:
    """All fields of a class and of its nested sections, inherited ones first."""
    resolved = _resolve(module, name)
    if resolved is not None:
        yield from _settings(resolved, "", {})


def unknown_keys(module: str, name: str, raw: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The paths of the keys in `raw` that a settings class does not have, as far as its source can tell, and values.

    Nothing is found in a class that also accepts what its annotations do not show: one with bases from elsewhere,
    aliases, a validator of raw values, or extra keys. Decoding decides in the end.
    """
    owner = _resolve(module, name)
    if owner is None or not _is_closed(owner):
        return
    for key, value in raw.items():
        annotated = [node for base in _mro(owner) for node in base.node.body if _is_field(node, str(key))]
        if not annotated:
            yield (str(key),), value
        elif isinstance(value, Mapping):
            yield from (((str(key), *path), inner) for path, inner in _unknown_in_section(owner, str(key), value))


def _unknown_in_section(owner: _Class, field: str, raw: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Like `unknown_keys`, for a field that is a section; a key is unknown if no class of a union has it."""
    base, node = next((base, node) for base in _mro(owner) for node in base.node.body if _is_field(node, field))
    parts = _union(node.annotation)
    classes = [_resolve(base.module, ast.unparse(part)) for part in parts if ast.unparse(part) != "None"]
    if not classes or any(c is None for c in classes):
        return
    found = [dict(unknown_keys(c.module, c.node.name, raw)) for c in classes if c is not None]
    yield from ((path, value) for path, value in found[0].items() if all(path in other for other in found))


def _union(annotation: ast.expr) -> list[ast.expr]:
    """The members of a union written with |, or the annotation itself."""
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return [*_union(annotation.left), *_union(annotation.right)]
    return [annotation]


def _is_field(node: ast.stmt, name: str) -> TypeGuard[ast.AnnAssign]:
    if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
        return False
    return node.target.id == name and not ast.unparse(node.annotation).startswith("ClassVar")


def _is_closed(owner: _Class) -> bool:
    """Whether the source shows all fields of a class: its bases, up to Settings, and no other way in."""
    mro = _mro(owner)
    if not any(c.node.name == "Settings" and c.module == SETTINGS for c in mro):
        return False
    for c in mro:
        if c.module == SETTINGS:
            continue
        if any(_resolve(c.module, ast.unparse(base)) is None for base in c.node.bases if ast.unparse(base) != "ABC"):
            return False
        if c.node.keywords or re.search(r"model_config|alias|mode='(before|wrap)'", ast.unparse(c.node)):
            return False
    return True


def _settings(owner: _Class, prefix: str, overrides: dict[str, ast.expr]) -> Iterator[Setting]:
    """`overrides`: arguments of the default value of this section, which take precedence over its own defaults."""
    fields: dict[str, tuple[_Class, ast.AnnAssign, str]] = {}
    for base in reversed(_mro(owner)):
        for i, node in enumerate(base.node.body, 1):
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                continue
            if not ast.unparse(node.annotation).startswith("ClassVar"):
                # The string below a field is the docstring of a module that would begin there.
                doc = ast.get_docstring(ast.Module(base.node.body[i:], []), clean=False)
                name = node.target.id
                fields[name] = (base, node, doc or (fields[name][2] if name in fields else ""))
    for name, (base, node, doc) in fields.items():
        default = overrides.get(name, node.value)
        arguments = {k.arg: k.value for k in default.keywords if k.arg} if isinstance(default, ast.Call) else {}
        sections = _sections(base, node.annotation)
        shown = "" if isinstance(default, ast.Call) and sections else _default(default)
        yield Setting(prefix + name, shown, " ".join(doc.split()))
        for section in sections:
            # A union names several sections; the arguments of the default belong to the one that it constructs.
            chosen = isinstance(default, ast.Call) and ast.unparse(default.func).split(".")[-1] == section.node.name
            yield from _settings(section, f"{prefix}{name}.", arguments if chosen else {})


def _default(value: ast.expr | None) -> str:
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "Field":
        value = next((k.value for k in value.keywords if k.arg == "default"), None)
    return "" if value is None else ast.unparse(value)


def _sections(owner: _Class, annotation: ast.expr) -> list[_Class]:
    """The settings classes in an annotation."""
    names = [ast.unparse(n) for n in ast.walk(annotation) if isinstance(n, ast.Name | ast.Attribute)]
    resolved = [_resolve(owner.module, name) for name in dict.fromkeys(names)]
    return [c for c in resolved if c is not None and any(base.node.name == "Settings" for base in _mro(c))]


def _mro(owner: _Class) -> list[_Class]:
    """The class and its bases, nearest first; bases without a resolvable source are left out."""
    bases = [_resolve(owner.module, ast.unparse(base)) for base in owner.node.bases]
    mro = [owner]
    for base in bases:
        mro += [c for c in (_mro(base) if base is not None else []) if c not in mro]
    return mro


def _resolve(module: str, name: str) -> _Class | None:
    """The class that `name` refers to in a module, following imports from mmpost; None for anything else."""
    tree = _tree(module)
    first, _, rest = name.partition(".")
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _Class(module, node)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "mmpost":
            for alias in node.names:
                if (alias.asname or alias.name) == first:
                    inner = f"{node.module}.{alias.name}"
                    return _resolve(inner, rest) if rest else _resolve(node.module, alias.name)
        if isinstance(node, ast.Import) and rest:
            for alias in node.names:
                if (alias.asname or alias.name) == first and alias.name == "mmpost":
                    return _resolve(EXPORTS[rest], rest) if rest in EXPORTS else None
    return None


def _tree(module: str) -> ast.Module:
    path = Path(module)
    if path.suffix != ".py":
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            return ast.Module([], [])
        path = Path(spec.origin)
    return _parsed(path, path.stat().st_mtime_ns)


@functools.cache
def _parsed(path: Path, changed_ns: int) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
