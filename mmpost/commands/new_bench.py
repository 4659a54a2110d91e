"""`mmpost new-bench NAME`: writes a working benchmark and its test to start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpost.commands.new_task import place, write_template
from mmpost.config import registry


def main(arguments: Sequence[str]) -> int:
    """`mmpost new-bench NAME [out=FOLDER]`."""
    name, out = place(arguments, "new-bench")
    file, test = write(name, out)
    path = file if file.is_absolute() else f"./{file}"
    print(f"written: {file} and {test}")
    print(f"python -m pytest {test}")
    print(f"mmpost score bench={path} predictions=FILE data.benches=FOLDER")
    return 0


def write(name: str, out: str = ".") -> tuple[Path, Path]:
    """Write <out>/<name>.py and <out>/test_<name>.py, and return their paths; raises ConfigError for an invalid or
    taken name."""
    package = f"mmpost.tasks.{registry.BENCHES}"
    file = write_template("bench", name, out, package)
    return file, write_template("test_bench", f"test_{name}", out, package, name)
