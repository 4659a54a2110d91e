"""Plug-ins outside the repository: files, folders and entry points, and errors for missing ones."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from mmpost.config import registry
from mmpost.errors import PluginError
from mmpost.types import Objective, Task, Update
from tests.contracts.test_rewards import REWARDS

TASK = '''
"""A task."""
from mmpost.types import Stage, Task
COUNT = []
COUNT.append(1)

class {kind}(Task):
    """Learns nothing."""

    def stages(self):
        return iter(())

def double(x):
    return 2 * x
'''


@pytest.fixture(autouse=True)
def restore_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore sys.path and sys.modules after the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.startswith("outside_")]:
        del sys.modules[name]


def test_a_task_in_a_file_is_imported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside_one.py").write_text(TASK.format(kind="One"))
    monkeypatch.chdir(tmp_path)
    first = registry.module("./outside_one.py", "mmpost.tasks")
    assert first is registry.module(str(tmp_path / "outside_one.py"), "mmpost.tasks") is sys.modules["outside_one"]
    assert registry.exported(first, Task).__module__ == "outside_one"
    assert registry.member("outside_one.py:double", "mmpost.rewards")(2) == 4
    assert first.COUNT == [1]


def test_a_task_in_a_folder_may_import_its_neighbours(tmp_path: Path) -> None:
    folder = tmp_path / "outside_two"
    folder.mkdir()
    (folder / "__init__.py").write_text("from outside_neighbour import WORD\n" + TASK.format(kind="Two"))
    (tmp_path / "outside_neighbour.py").write_text("WORD = 'here'")
    module = registry.module(str(folder), "mmpost.tasks")
    assert module.WORD == "here"
    assert registry.label(str(folder)) == "outside_two"


def test_a_script_that_trains_itself_is_not_imported_twice(tmp_path: Path) -> None:
    script = tmp_path / "outside_script.py"
    script.write_text(
        TASK.format(kind="Script")
        + """
if __name__ == "__main__":
    import multiprocessing
    from mmpost.config import registry
    mod = registry.module(__file__, "mmpost.tasks")
    assert registry.exported(mod, Task) is Script
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(double, [4]))
"""
    )
    process = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert process.stdout == "[8]\n", process.stderr


def test_classes_of_a_task_file_unpickle_in_spawned_processes(tmp_path: Path) -> None:
    (tmp_path / "outside_spawned.py").write_text(TASK.format(kind="Spawned"))
    runner = tmp_path / "elsewhere" / "runner.py"
    runner.parent.mkdir()
    runner.write_text(
        """
if __name__ == "__main__":
    import multiprocessing, sys
    from mmpost.config import registry
    mod = registry.module(sys.argv[1], "mmpost.tasks")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(mod.double, [4]), pool.map(mod.Spawned.model_validate, [{}])[0] == mod.Spawned())
"""
    )
    command = [sys.executable, str(runner), str(tmp_path / "outside_spawned.py")]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.stdout == "[8] True\n", process.stderr


def test_an_installed_package_brings_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "outside_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mmpost.tasks]\nfar_away = outside_package\n")
    (tmp_path / "outside_package.py").write_text(TASK.format(kind="FarAway"))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "far_away" in {point.name for point in metadata.entry_points(group="mmpost.tasks")}
    assert registry.exported(registry.module("far_away", "mmpost.tasks"), Task).__name__ == "FarAway"


def test_a_missing_plugin_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("outside_here.py").write_text("")
    Path("json.py").write_text("")
    Path("with-dash.py").write_text("")
    (tmp_path / "empty").mkdir()
    for name, message in {
        "visruf": "did you mean visurf",
        "outside_here": r"write \./outside_here\.py",
        "./outside_not_here.py": r"no|none at .*outside_not_here\.py",
        "./empty": "__init__.py",
        "./json.py": "is taken by another module .*rename the file",
        "./with-dash.py": "name that Python can import",
        "no.such.thing": "no task named 'no.such.thing'",
    }.items():
        with pytest.raises(PluginError, match=message):
            registry.module(name, "mmpost.tasks")
    with pytest.raises(PluginError, match="has no 'nothing'"):
        registry.member("outside_here.py:nothing", "mmpost.rewards")


def test_an_error_in_a_task_file_is_raised_unchanged(tmp_path: Path) -> None:
    (tmp_path / "outside_broken.py").write_text("import no_such_module_anywhere")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        registry.module(str(tmp_path / "outside_broken.py"), "mmpost.tasks")


def test_the_listed_plugins_exclude_helpers() -> None:
    listed = {kind: list(registry.plugins(f"mmpost.{kind}")) for kind in registry.INTERFACES}
    assert all(doc for plugins in listed.values() for _, _, doc in plugins)
    for kind, base in (("objectives", Objective), ("updates", Update)):
        classes = {
            (name, value.__name__)
            for name in registry.modules(f"mmpost.{kind}")
            for value in vars(registry.module(name, f"mmpost.{kind}")).values()
            if inspect.isclass(value) and issubclass(value, base) and value.__module__ == f"mmpost.{kind}.{name}"
        }
        assert {(module, name) for module, name, _ in listed[kind]} == classes
    assert {f"{module}.{name}" for module, name, _ in listed["rewards"]} == {
        *REWARDS,
        "span.DualReward",
        "table.TableSimilarity",
    }
    assert "columns" not in {module for module, _, _ in listed["transforms"]}
    assert {name for _, name, _ in listed["edits"]} == {"AddHead", "Freeze", "Lora", "Standardize"}


def test_a_plugin_may_inherit_its_interface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "outside_package" / "transforms"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "mine.py").write_text(
        "class _Base:\n    def __call__(self, samples, context): ...\n\n\n"
        'class Mine(_Base):\n    """Does it."""\n\n\nclass Other: ...\n\n\ndef helper(samples): ...\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(registry.plugins("outside_package.transforms")) == [("mine", "Mine", "Does it.")]
