"""Plug-ins by name or dotted path. Knows folders, never a name in advance. No torch here."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
from collections.abc import Iterator
from importlib import resources
from types import ModuleType
from typing import Any, TypeVar

from mmpost.errors import PluginError

T = TypeVar("T")


def modules(package: str) -> dict[str, str]:
    """Module name -> first line of its docstring, for the modules of a package; read, not imported."""
    found = {}
    for file in sorted(resources.files(package).iterdir(), key=lambda f: f.name):
        if file.name.endswith(".py") and not file.name.startswith("_"):
            doc = ast.get_docstring(ast.parse(file.read_text())) or ""
            found[file.name.removesuffix(".py")] = doc.partition("\n")[0]
    return found


def definitions(package: str) -> Iterator[tuple[str, str, str]]:
    """(module, public class or function, first line of its docstring) of a package; read, not imported."""
    for name in modules(package):
        tree = ast.parse(resources.files(package).joinpath(f"{name}.py").read_text())
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                yield name, node.name, (ast.get_docstring(node) or "").partition("\n")[0]


def module(name: str, package: str) -> ModuleType:
    """The module `name` of `package`, or the one at the dotted path `name`.

    Raises PluginError naming the nearest one that exists; an error inside the module itself is not hidden.
    """
    known = modules(package)
    path = f"{package}.{name}" if "." not in name else name
    try:
        spec = importlib.util.find_spec(path)
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        kind = package.rsplit(".", 1)[-1].removesuffix("s")
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}? " if close else ""
        raise PluginError(f"no {kind} named {name!r}: {hint}There are {', '.join(known)}; or give a dotted path")
    return importlib.import_module(path)


def member(name: str, package: str) -> Any:
    """The object `module.name` of `package`, or `dotted.module:name` from anywhere.

    Raises PluginError where the module has no such public name.
    """
    path, _, attribute = name.rpartition(":") if ":" in name else name.rpartition(".")
    if not path:
        kind = package.rsplit(".", 1)[-1]
        raise PluginError(f"{name!r} is no name of one of the {kind}; write module.function, or a.module:function")
    mod = module(path, package)
    found = getattr(mod, attribute, None)
    if found is None or attribute.startswith("_"):
        public = [n for n, value in vars(mod).items() if callable(value) and not n.startswith("_")]
        close = difflib.get_close_matches(attribute, public, n=1, cutoff=0.4)
        raise PluginError(f"{mod.__name__} has no {attribute!r}{f'; did you mean {close[0]}?' if close else ''}")
    return found


def exported(mod: ModuleType, base: type[T]) -> type[T]:
    """The one public subclass of `base` that `mod` defines; raises PluginError where there is none or several."""
    found = [
        value
        for name, value in vars(mod).items()
        if inspect.isclass(value)
        and issubclass(value, base)
        and value.__module__ == mod.__name__
        and not name.startswith("_")
    ]
    if len(found) != 1:
        names = ", ".join(c.__name__ for c in found) or "none"
        raise PluginError(
            f"{mod.__name__} must define exactly one public class derived from {base.__name__}, found {names}"
        )
    return found[0]
