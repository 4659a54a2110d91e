"""Plug-ins by name, entry point, dotted path or file. Knows folders, never a name in advance. No torch here."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata, resources
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from mmpost.errors import PluginError

T = TypeVar("T")


def modules(package: str) -> dict[str, str]:
    """Module name -> first line of its docstring, for the modules of a package and of its folders ("bases.digits").

    Files are read, not imported.
    """
    found = {}
    for file in sorted(resources.files(package).iterdir(), key=lambda f: f.name):
        if file.name.endswith(".py") and not file.name.startswith("_"):
            doc = ast.get_docstring(ast.parse(file.read_text())) or ""
            found[file.name.removesuffix(".py")] = doc.partition("\n")[0]
        elif file.is_dir() and file.joinpath("__init__.py").is_file():
            found |= {f"{file.name}.{name}": doc for name, doc in modules(f"{package}.{file.name}").items()}
    return found


def definitions(package: str) -> Iterator[tuple[str, str, str]]:
    """(module, public class or function, first line of its docstring) of a package; read, not imported."""
    for name, node in _definitions(package):
        if not node.name.startswith("_"):
            yield name, node.name, (ast.get_docstring(node) or "").partition("\n")[0]


INTERFACES: Mapping[str, str | tuple[str, ...]] = {
    "objectives": "Objective",
    "updates": "Update",
    "transforms": ("samples", "context"),
    "rewards": ("sample", "reply"),
    "edits": ("model",),
}
"""What makes a class or function of a package a plug-in: its base class, or the first parameters of a call."""


def plugins(package: str) -> Iterator[tuple[str, str, str]]:
    """(module, name, first line of its docstring) of a package's plug-ins, helpers left out; read, not imported.

    See `INTERFACES`; a class also counts if it inherits from one of the package that counts.
    """
    wanted = INTERFACES[package.rpartition(".")[2]]
    nodes = {node.name: node for _, node in _definitions(package)}

    def counts(node: ast.ClassDef | ast.FunctionDef) -> bool:
        if isinstance(node, ast.FunctionDef):
            return not isinstance(wanted, str) and _parameters(node)[: len(wanted)] == wanted
        bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
        if wanted in bases or any(counts(nodes[base]) for base in bases if base in nodes):
            return True
        calls = (child for child in node.body if isinstance(child, ast.FunctionDef) and child.name == "__call__")
        return not isinstance(wanted, str) and any(_parameters(call)[1 : len(wanted) + 1] == wanted for call in calls)

    for module_name, node in _definitions(package):
        if not node.name.startswith("_") and counts(node):
            yield module_name, node.name, (ast.get_docstring(node) or "").partition("\n")[0]


def _parameters(node: ast.FunctionDef) -> tuple[str, ...]:
    return tuple(argument.arg for argument in node.args.args)


def _definitions(package: str) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    for name in modules(package):
        tree = ast.parse(resources.files(package).joinpath(f"{name.replace('.', '/')}.py").read_text())
        yield from ((name, node) for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef))


def installed(package: str) -> dict[str, str]:
    """Name -> dotted path of the plug-ins that installed packages bring: entry points of the group named `package`."""
    return {point.name: point.module for point in metadata.entry_points(group=package)}


def module(name: str, package: str) -> ModuleType:
    """The plug-in's module: `name` in `package` or among its entry points, a dotted path, or a file or package folder.

    Raises PluginError naming the nearest one that exists; an error inside the module itself is not hidden.
    """
    return from_file(name) if is_file(name) else importlib.import_module(locate(name, package))


def locate(name: str, package: str) -> str:
    """The dotted path of a plug-in's module, or the path of its file; see `module`. Nothing of it is imported."""
    if is_file(name):
        return str(_file(name))
    known = {**dict.fromkeys(installed(package)), **modules(package)}
    path = f"{package}.{name}" if name in known or "." not in name else name
    try:
        spec = importlib.util.find_spec(path)
    except ModuleNotFoundError:
        spec = None
    if spec is not None:
        return path
    if name in known:
        return installed(package)[name]
    plugin = package.rsplit(".", 1)[-1].removesuffix("s")
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]}? " if close else ""
    file_hint = f"{name}.py is a file here: say ./{name}.py. " if Path(f"{name}.py").is_file() else ""
    raise PluginError(
        f"no {plugin} named {name!r}: {file_hint}{hint}There are {', '.join(known)}; or give a dotted path, or a file "
        "like ./my.py"
    )


def is_file(name: str) -> bool:
    """Whether a plug-in's name is the path of a file or folder, not a word or dotted path."""
    return name.endswith(".py") or "/" in name or os.sep in name or name.startswith("~")


def label(name: str) -> str:
    """What a plug-in's name is called in folders and titles: the last part of a path, without its ending."""
    return Path(name).expanduser().resolve().stem if is_file(name) else name.rpartition(".")[2]


def from_file(name: str) -> ModuleType:
    """The module in a .py file, or in a folder with an __init__.py; the same file is imported once.

    Its name is the file's own and its folder joins the end of sys.path, so it may import its neighbours, and its
    classes and functions can be sent to spawned processes. Raises PluginError where there is no such file, or where
    another module has that name.
    """
    path, file = Path(name).expanduser().resolve(), _file(name)
    for loaded in list(sys.modules.values()):
        if getattr(loaded, "__file__", None) and Path(str(loaded.__file__)).resolve() == file:
            return loaded  # also the script that is being run: __main__ is not imported a second time
    if not path.stem.isidentifier():
        raise PluginError(f"{file}: wanted a name that Python can import (letters, digits, _), found {path.stem!r}")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    importlib.invalidate_caches()  # the file may be younger than the last look into its folder
    spec = importlib.util.find_spec(path.stem)
    if spec is None or spec.origin is None or Path(spec.origin).resolve() != file:
        where = spec.origin if spec else "nowhere"
        raise PluginError(f"{file}: the name {path.stem!r} means another module already ({where}); rename the file")
    return importlib.import_module(path.stem)


def _file(name: str) -> Path:
    path = Path(name).expanduser().resolve()
    file = path / "__init__.py" if path.is_dir() else path
    if not file.is_file() or file.suffix != ".py":
        raise PluginError(f"wanted a .py file, or a folder with an __init__.py, found none at {path}; correct the path")
    return file


def member(name: str, package: str) -> Any:
    """The object `module.name` of `package`, or `dotted.module:name` or `path/to/file.py:name` from anywhere.

    Raises PluginError where the module has no such public name.
    """
    path, _, attribute = name.rpartition(":") if ":" in name else name.rpartition(".")
    if not path:
        kind = package.rsplit(".", 1)[-1]
        raise PluginError(
            f"{name!r} is no name of one of the {kind}; write module.function, a.module:function or file.py:function"
        )
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
