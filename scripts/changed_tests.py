"""Selects files to type-check and tests to run by import distance from the changed files, for `scripts/check fast`.

Usage: python scripts/changed_tests.py files        the changed Python files and those that import them
       python scripts/changed_tests.py tests        their tests, nearest first, for MMPOST_FAST_SECONDS (30)

A change is what differs from where the branch left main, committed or not. pytest-picked runs only test files that
changed themselves, and pytest-testmon first needs a run of all tests under coverage, far longer than a minute.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINKED = ("data", "rewards", "tasks")  # imported as parts of mmpost
MAX_DISTANCE = 2  # 1 is a direct import; 2 also finds an import through a package that re-exports


def git(*words: str) -> list[str]:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def changed() -> list[str]:
    """Paths that differ from the merge base with main, or from HEAD where there is no main; with untracked ones."""
    bases = [*git("merge-base", "HEAD", "origin/main"), *git("merge-base", "HEAD", "main"), "HEAD"]
    return sorted({*git("diff", "--name-only", bases[0]), *git("ls-files", "--others", "--exclude-standard")})


def module_name(path: str) -> str:
    """How `path` is imported: data/x.py is mmpost.data.x; tests/support/x.py and scripts/x.py are x."""
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    if name.split(".")[0] in LINKED:
        return f"mmpost.{name}"
    return name.removeprefix("tests.support.").removeprefix("scripts.")


def imports(source: str, names: Container[str]) -> set[str]:
    """The modules among `names` that a file imports, lazily or not."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules |= {name for name in inner if name in names} or {node.module}
    return modules


def distances(paths: Iterable[str], files: Mapping[str, str]) -> dict[str, int]:
    """Distance from the changed `paths` of each file that imports them, nearest first; `files` holds sources by path.

    A test that mirrors the path of a changed module counts as importing it, as do the contracts of its package.
    """
    names = {module_name(path) for path in (*files, *paths) if path.endswith(".py")}
    importers: dict[str, set[str]] = {}
    for path, source in files.items():
        for name in imports(source, names):
            importers.setdefault(name, set()).add(path)
    distance_of = {path: 0 for path in paths if path in files}
    frontier = {module_name(path) for path in paths if path.endswith(".py")}
    for name in frontier:
        *package, last = name.removeprefix("mmpost.").split(".")
        for mirror in (
            "/".join(["tests", *package, f"test_{last}.py"]),
            f"tests/contracts/test_{'_'.join(package)}.py",
        ):
            if mirror in files:
                distance_of.setdefault(mirror, 1)
    for distance in range(1, MAX_DISTANCE + 1):
        reached = {path for name in frontier for path in importers.get(name, ())} - distance_of.keys()
        distance_of |= dict.fromkeys(reached, distance)
        frontier = {module_name(path) for path in reached}
    return dict(sorted(distance_of.items(), key=lambda item: (item[1], item[0])))


class Budget:
    """A pytest plugin that starts no test after `seconds`, and reports which were left out."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.end = seconds, time.monotonic() + seconds
        self.left: list[str] = []  # the file of each test

    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if time.monotonic() < self.end:
            return None
        self.left.append(item.nodeid.partition("::")[0])
        return True

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.left:
            where = ", ".join(f"{file} ({self.left.count(file)})" for file in dict.fromkeys(self.left))
            terminalreporter.write_line(f"left out after {self.seconds:g} s: {len(self.left)} tests of {where}")


def main(what: str) -> int:
    listed = {path for path in git("ls-files", "--cached", "--others", "--exclude-standard") if path.endswith(".py")}
    files = {path: (ROOT / path).read_text(encoding="utf-8") for path in listed if (ROOT / path).is_file()}
    nearest = distances(changed(), files)
    if what == "files":
        print("\n".join(path for path, distance in nearest.items() if distance <= 1))
        return 0
    tests = [path for path in nearest if path.startswith("tests/") and Path(path).name.startswith("test_")]
    if not tests:
        print("no test imports what changed")
        return 0
    budget = Budget(float(os.environ.get("MMPOST_FAST_SECONDS", "30")))
    code = pytest.main(["-q", "-m", "not slow", *tests], plugins=[budget])
    return 0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else int(code)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
