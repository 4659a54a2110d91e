"""`mmpost new-task NAME`: a file that is a working task, to be changed into one's own."""

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
    given = parsing.parse_arguments([argument for argument in arguments if "=" in argument], ("out",))
    if len(names) != 1:
        raise ConfigError(f"wanted one name, found {names}; write mmpost new-task NAME [out=FOLDER]")
    file = write(names[0], given.get("out", "."))
    shown = file if file.is_absolute() else f"./{file}"
    print(f"written: {file}")
    print(f"mmpost check task={shown} model=random-tiny")
    print(f"mmpost train task={shown} model=random-tiny steps=2")
    return 0


def write(name: str, out: str = ".") -> Path:
    """Write <out>/<name>.py and return its path; raises ConfigError for a name that would not work or is taken."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ConfigError(f"wanted a name that Python can import (letters, digits, _), found {name!r}; try another")
    folder = Path(out).expanduser()
    file = folder / f"{name}.py"
    if file.exists():
        raise ConfigError(f"{file} exists; name another task, or remove the file")
    if name in {**registry.modules("mmpost.tasks"), **registry.installed("mmpost.tasks")}:
        raise ConfigError(
            f"there is a task named {name} already; choose another name, so that no run mistakes one for it"
        )
    if importlib.util.find_spec(name) is not None:
        raise ConfigError(f"a module named {name} is installed, and Python would import that; choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    title = name.replace("_", " ").strip().capitalize() or name
    kind = "".join(word.capitalize() for word in name.split("_")) or "Own"
    template = resources.files("mmpost.commands").joinpath("templates/task.py.txt").read_text()
    file.write_text(Template(template).substitute(name=name, title=title, kind=kind))
    return file
