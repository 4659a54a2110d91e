"""`mmpost new-task NAME` and `mmpost new-bench NAME`: write a working task or benchmark to start from."""

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
    name, out = place(arguments, "new-task")
    file = write(name, out)
    path = file if file.is_absolute() else f"./{file}"
    print(f"written: {file}")
    print(f"mmpost check task={path} model=random-tiny")
    print(f"mmpost train task={path} model=random-tiny steps=2")
    return 0


def new_bench(arguments: Sequence[str]) -> int:
    """`mmpost new-bench NAME [out=FOLDER]`."""
    file, test = write_bench(*place(arguments, "new-bench"))
    path = file if file.is_absolute() else f"./{file}"
    print(f"written: {file} and {test}")
    print(f"python -m pytest {test}")
    print(f"mmpost score bench={path} predictions=FILE data.benches=FOLDER")
    return 0


def place(arguments: Sequence[str], command: str) -> tuple[str, str]:
    """The name and the folder that `mmpost COMMAND NAME [out=FOLDER]` was given; raises ConfigError for others."""
    names = [argument for argument in arguments if "=" not in argument]
    options = parsing.parse_arguments([argument for argument in arguments if "=" in argument], ("out",))
    if len(names) != 1:
        raise ConfigError(f"wanted one name, found {names}; run mmpost {command} NAME [out=FOLDER]")
    return names[0], options.get("out", ".")


def write(name: str, out: str = ".") -> Path:
    """Write <out>/<name>.py and return its path; raises ConfigError for an invalid or taken name."""
    return write_template("task", name, out, "mmpost.tasks")


def write_bench(name: str, out: str = ".") -> tuple[Path, Path]:
    """Write <out>/<name>.py and <out>/test_<name>.py and return their paths; raises ConfigError as `write` does."""
    package = f"mmpost.tasks.{registry.BENCHES}"
    file = write_template("bench", name, out, package)
    return file, write_template("test_bench", f"test_{name}", out, package, name)


def write_template(template: str, name: str, out: str, package: str, subject: str = "") -> Path:
    """Write a plug-in of `package` from a template as <out>/<name>.py, and return its path.

    `subject` is what the file is about, by default its name. Raises ConfigError for a name that Python cannot import,
    or that is taken.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ConfigError(f"wanted a name that Python can import (letters, digits, _), found {name!r}; choose another")
    folder = Path(out).expanduser()
    file = folder / f"{name}.py"
    if file.exists():
        raise ConfigError(f"{file} exists; choose another name, or remove the file")
    if name in {**registry.modules(package), **registry.installed(package)}:
        option = "bench" if package.endswith(registry.BENCHES) else "task"
        raise ConfigError(
            f"a {option} named {name} exists already; choose another name, so that {option}={name} is unambiguous"
        )
    if importlib.util.find_spec(name) is not None:
        raise ConfigError(f"a module named {name} is installed, which Python would import instead; choose another")
    folder.mkdir(parents=True, exist_ok=True)
    subject = subject or name
    title = subject.replace("_", " ").strip().capitalize() or subject
    class_name = "".join(word.capitalize() for word in subject.split("_")) or "Own"
    text = resources.files("mmpost.commands").joinpath(f"templates/{template}.py.txt").read_text()
    file.write_text(Template(text).substitute(name=subject, title=title, class_name=class_name))
    return file
