"""Find plug-ins by name, entry point, dotted path or file.

Plug-ins are discovered as files; there is no list of names. Does not import torch.
"""

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


BENCHES = "benches"
"""The folder of tasks that holds benchmarks, which are no tasks."""


def modules(package: str) -> dict[str, str]:
    """First line of the docstring, by name, of a package's modules and those of its folders ("bases.digits").

    Files are parsed, not imported. Benchmarks are modules of their own package only.
    """
    docs = {}
    for file in sorted(resources.files(package).iterdir(), key=lambda f: f.name):
        if file.name.endswith(".py") and not file.name.startswith("_"):
            doc = ast.get_docstring(ast.parse(file.read_text())) or ""
            docs[file.name.removesuffix(".py")] = doc.partition("\n")[0]
        elif file.is_dir() and file.name != BENCHES and file.joinpath("__init__.py").is_file():
            docs |= {f"{file.name}.{name}": doc for name, doc in modules(f"{package}.{file.name}").items()}
    return docs


def definitions(package: str) -> Iterator[tuple[str, str, str]]:
    """(module, public class or function, first line of its docstring) of a package; parsed, not imported."""
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
"""What defines a plug-in of each package: the base class of a class, or the first parameters of a call."""


def plugins(package: str) -> Iterator[tuple[str, str, str]]:
    """(module, name, first line of its docstring) of a package's plug-ins; parsed, not imported.

    A plug-in matches `INTERFACES`, or inherits from a plug-in of the package.
    """
    interface = INTERFACES[package.rpartition(".")[2]]
    nodes = {node.name: node for _, node in _definitions(package)}

    def is_plugin(node: ast.ClassDef | ast.FunctionDef) -> bool:
        if isinstance(node, ast.FunctionDef):
            return not isinstance(interface, str) and _parameters(node)[: len(interface)] == interface
        bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
        if interface in bases or any(is_plugin(nodes[base]) for base in bases if base in nodes):
            return True
        calls = (child for child in node.body if isinstance(child, ast.FunctionDef) and child.name == "__call__")
        return not isinstance(interface, str) and any(
            _parameters(call)[1 : len(interface) + 1] == interface for call in calls
        )

    for module_name, node in _definitions(package):
        if not node.name.startswith("_") and is_plugin(node):
            yield module_name, node.name, (ast.get_docstring(node) or "").partition("\n")[0]


def _parameters(node: ast.FunctionDef) -> tuple[str, ...]:
    return tuple(argument.arg for argument in node.args.args)


def _definitions(package: str) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    for name in modules(package):
        tree = ast.parse(resources.files(package).joinpath(f"{name.replace('.', '/')}.py").read_text())
        yield from ((name, node) for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef))


def installed(package: str) -> dict[str, str]:
    """Dotted paths by name of the plug-ins in installed packages: entry points of the group `package`."""
    return {point.name: point.module for point in metadata.entry_points(group=package)}


def installed_docs(package: str) -> dict[str, str]:
    """First line of the docstring, by name, of the plug-ins in installed packages, else where they are from.

    Files are parsed, not imported, and neither are the packages that they are in.
    """
    return {name: _first_line(path) or f"from {path}" for name, path in installed(package).items()}


def _first_line(dotted: str) -> str:
    """The first line of a module's docstring; empty without one, and for a module that cannot be read."""
    top, *rest = dotted.split(".")
    try:
        spec = importlib.util.find_spec(top)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        files = [Path(folder, *rest, "__init__.py") for folder in folders]
        files += [Path(folder, *rest).with_suffix(".py") for folder in folders] if rest else []
        files += [Path(spec.origin)] if spec and spec.origin and not rest else []
        file = next((file for file in files if file.is_file()), None)
        tree = ast.parse(file.read_text(encoding="utf-8")) if file else ast.Module([], [])
    except (OSError, ValueError, SyntaxError):  # using the plug-in says what is wrong
        return ""
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def module(name: str, package: str) -> ModuleType:
    """Import a plug-in: a module of `package` or of its entry points, a dotted path, a file, or a package folder.

    Raises PluginError with the closest match if there is none. Errors raised inside the module are passed on.
    """
    return from_file(name) if is_file(name) else importlib.import_module(locate(name, package))


def locate(name: str, package: str) -> str:
    """The dotted path of a plug-in's module, or the path of its file, without importing it; see `module`."""
    if is_file(name):
        return str(_file(name))
    available = {**dict.fromkeys(installed(package)), **modules(package)}
    path = f"{package}.{name}" if name in available or "." not in name else name
    try:
        spec = importlib.util.find_spec(path)
    except ModuleNotFoundError:
        spec = None
    if spec is not None:
        return path
    if name in available:
        return installed(package)[name]
    folder = package.rsplit(".", 1)[-1]
    plugin = "benchmark" if folder == BENCHES else folder.removesuffix("s")
    close = difflib.get_close_matches(name, available, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]}? " if close else ""
    file_hint = f"to use the file {name}.py, write ./{name}.py. " if os.path.isfile(f"{name}.py") else ""
    raise PluginError(
        f"no {plugin} named {name!r}: {file_hint}{hint}Available: {', '.join(available)}; or a dotted path, or a file "
        "such as ./my.py"
    )


def is_file(name: str) -> bool:
    """Whether a plug-in is given as the path of a file or folder rather than as a name or dotted path."""
    return name.endswith(".py") or "/" in name or os.sep in name or name.startswith("~")


def label(name: str) -> str:
    """A short name for folders and titles: the last part of a path, without its suffix."""
    return Path(name).expanduser().resolve().stem if is_file(name) else name.rpartition(".")[2]


def from_file(name: str) -> ModuleType:
    """Import a .py file, or a folder with an __init__.py; a loaded file is not imported again.

    The module is named after the file, and its folder is appended to sys.path: the file may then import its neighbors,
    and its classes and functions can be pickled for spawned processes. Raises PluginError if there is no such file,
    or if another module has that name.
    """
    path, file = Path(name).expanduser().resolve(), _file(name)
    for loaded in list(sys.modules.values()):
        if getattr(loaded, "__file__", None) and Path(str(loaded.__file__)).resolve() == file:
            return loaded  # may be the running script: __main__ must not be imported a second time
    if not path.stem.isidentifier():
        raise PluginError(f"{file}: wanted a name that Python can import (letters, digits, _), found {path.stem!r}")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    importlib.invalidate_caches()  # the file may have been created after its folder was last listed
    spec = importlib.util.find_spec(path.stem)
    if spec is None or spec.origin is None or Path(spec.origin).resolve() != file:
        origin = spec.origin if spec else "without a file"
        raise PluginError(f"{file}: the name {path.stem!r} is taken by another module ({origin}); rename the file")
    return importlib.import_module(path.stem)


def _file(name: str) -> Path:
    path = Path(name).expanduser().resolve()
    file = path / "__init__.py" if path.is_dir() else path
    if not file.is_file() or file.suffix != ".py":
        raise PluginError(f"wanted a .py file, or a folder with an __init__.py, found none at {path}; correct the path")
    return file


def member(name: str, package: str) -> Any:
    """Import an object: `module.name` of `package`, or `dotted.module:name` or `path/to/file.py:name`.

    Raises PluginError if the module has no such public name.
    """
    path, _, attribute = name.rpartition(":") if ":" in name else name.rpartition(".")
    if not path:
        group = package.rsplit(".", 1)[-1]
        raise PluginError(
            f"{name!r} does not name one of the {group}; write module.function, a.module:function or file.py:function"
        )
    mod = module(path, package)
    value = getattr(mod, attribute, None)
    if value is None or attribute.startswith("_"):
        public = [n for n, attr in vars(mod).items() if callable(attr) and not n.startswith("_")]
        close = difflib.get_close_matches(attribute, public, n=1, cutoff=0.4)
        raise PluginError(f"{mod.__name__} has no {attribute!r}{f'; did you mean {close[0]}?' if close else ''}")
    return value


def exported(mod: ModuleType, base: type[T]) -> type[T]:
    """The only public subclass of `base` defined in `mod`. Raises PluginError unless there is exactly one."""
    classes = [
        value
        for name, value in vars(mod).items()
        if inspect.isclass(value)
        and issubclass(value, base)
        and value.__module__ == mod.__name__
        and not name.startswith("_")
    ]
    if len(classes) != 1:
        names = ", ".join(c.__name__ for c in classes) or "none"
        raise PluginError(
            f"{mod.__name__}: wanted exactly one public class derived from {base.__name__}, found {names}"
        )
    return classes[0]
