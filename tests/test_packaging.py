"""The wheel built from the sdist has every module and configuration, and no other top-level name."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("mmpost", "configs", "data", "rewards", "tasks")

BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""


def build(hook: str, tree: Path, out: Path) -> Path:
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD, hook, str(out)], cwd=tree, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return out / process.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The released wheel: built from the unpacked sdist."""
    base = tmp_path_factory.mktemp("packaging")
    tree = base / "tree"
    tree.mkdir()
    for name in SHIPPED:
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    sdist = build("build_sdist", tree, base)
    shutil.unpack_archive(sdist, base / "unpacked", filter="data")
    return build("build_wheel", next((base / "unpacked").iterdir()), base)


def test_the_wheel_holds_every_module_and_configuration(wheel: Path) -> None:
    expected = {"mmpost/py.typed"}
    for name in SHIPPED:
        prefix = Path(name) if name == "mmpost" else Path("mmpost") / name
        expected |= {
            (prefix / path.relative_to(ROOT / name)).as_posix()
            for path in (ROOT / name).rglob("*")
            if path.suffix in {".py", ".yaml", ".html", ".css", ".js"} or path.name.endswith(".py.txt")
        }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert not expected - names
    package_files = {name for name in names if ".dist-info/" not in name}
    assert package_files == expected


def test_the_wheel_claims_one_name_and_one_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    text = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    assert text["top_level.txt"].split() == ["mmpost"]
    assert "mmpost = mmpost.cli:main" in text["entry_points.txt"]


def test_the_wheel_runs_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path / "site")!r})
from importlib import resources
import mmpost, mmpost.tasks, mmpost.rewards, mmpost.data
assert mmpost.__file__.startswith({str(tmp_path)!r}), mmpost.__file__
found = sorted(e.name for e in resources.files("mmpost.configs").iterdir() if e.name.endswith(".yaml"))
assert {sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))} == found
from mmpost.cli import main
main(["list"])
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    for path in (ROOT / "tasks").glob("[!_]*.py"):
        assert path.stem in process.stdout
