"""`mmpost new-task NAME`: writes a working task to start from."""

from __future__ import annotations

import importlib.util
import keyword
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template

from mmpost.config import parsing, registry
from mmpost.errors import ConfigError


def main(arguments: Sequence[str]) -> int:
    """`mmpost new-task NAME [out=FOLDER]`."""
    names = [argument for argument in arguments if "=" not in argument]
    options = parsing.parse_arguments([argument for argument in arguments if "=" in argument], ("out",))
    if len(names) != 1:
        raise ConfigError(f"wanted one name, found {names}; run mmpost new-task NAME [out=FOLDER]")
    file = write(names[0], options.get("out", "."))
    name = file if file.is_absolute() else f"./{file}"
    print(f"written: {file}")
    print(f"mmpost check task={name} model=random-tiny")
    print(f"mmpost train task={name} model=random-tiny steps=2")
    return 0


def write(name: str, out: str = ".") -> Path:
    """Write <out>/<name>.py and return its path; raises ConfigError for an invalid or taken name."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ConfigError(f"wanted a name that Python can import (letters, digits, _), found {name!r}; choose another")
    folder = Path(out).expanduser()
    file = folder / f"{name}.py"
    if file.exists():
        raise ConfigError(f"{file} exists; choose another name, or remove the file")
    if name in {**registry.modules("mmpost.tasks"), **registry.installed("mmpost.tasks")}:
        raise ConfigError(
            f"a task named {name} exists already; choose another name, so that task={name} is unambiguous"
        )
    if importlib.util.find_spec(name) is not None:
        raise ConfigError(f"a module named {name} is installed, which Python would import instead; choose another")
    folder.mkdir(parents=True, exist_ok=True)
    title = name.replace("_", " ").strip().capitalize() or name
    class_name = "".join(word.capitalize() for word in name.split("_")) or "Own"
    template = resources.files("mmpost.commands").joinpath("templates/task.py.txt").read_text()
    file.write_text(Template(template).substitute(name=name, title=title, class_name=class_name))
    return file
