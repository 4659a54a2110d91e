"""Test selection by changed files, and reporting of tests skipped for lack of time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from changed_tests import Budget, distances, module_name

FILES = {
    "mmpost/core/stage.py": "import torch",
    "mmpost/types.py": "from mmpost.core.stage import Stage",
    "mmpost/runs/run.py": "def f():\n    from mmpost import types",
    "mmpost/cli.py": "import mmpost.runs.run",
    "rewards/text.py": "from mmpost.types import Reply",
    "tests/core/test_stage.py": "",
    "tests/support/runs.py": "from mmpost.runs import run",
    "tests/test_types.py": "from mmpost.types import Stage",
    "tests/test_cli.py": "import mmpost.cli",
    "tests/runs/test_resume.py": "from runs import small",
    "tests/contracts/test_rewards.py": "",
}


def test_test_files_are_ordered_by_import_distance() -> None:
    assert distances(["mmpost/core/stage.py"], FILES) == {
        **{"mmpost/core/stage.py": 0, "mmpost/types.py": 1, "tests/core/test_stage.py": 1},
        **{"mmpost/runs/run.py": 2, "rewards/text.py": 2, "tests/test_types.py": 2},
    }
    assert list(distances(["mmpost/runs/run.py"], FILES).values()) == [0, 1, 1, 2, 2]


def test_deleted_files_linked_folders_and_test_helpers_are_resolved() -> None:
    without = {path: source for path, source in FILES.items() if path != "mmpost/types.py"}
    assert set(distances(["mmpost/types.py"], without)) >= {"mmpost/runs/run.py", "tests/test_types.py"}
    assert distances(["rewards/text.py"], FILES) == {"rewards/text.py": 0, "tests/contracts/test_rewards.py": 1}
    assert distances(["tests/support/runs.py"], FILES)["tests/runs/test_resume.py"] == 1
    assert distances(["README.md", "tests/test_cli.py"], FILES) == {"tests/test_cli.py": 0}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("mmpost/runs/__init__.py", "mmpost.runs"),
        ("tasks/visurf.py", "mmpost.tasks.visurf"),
        ("tests/support/forked.py", "forked"),
        ("tests/models/samples.py", "tests.models.samples"),
    ],
)
def test_module_names_are_those_of_import_statements(path: str, name: str) -> None:
    assert module_name(path) == name


def test_tests_beyond_the_budget_are_skipped_and_counted() -> None:
    item: Any = SimpleNamespace(nodeid="tests/test_cli.py::test_a[1]")
    assert Budget(60).pytest_runtest_protocol(item) is None
    spent, lines = Budget(0), []
    assert [spent.pytest_runtest_protocol(item) for _ in range(2)] == [True, True]
    reporter: Any = SimpleNamespace(write_line=lines.append)
    spent.pytest_terminal_summary(reporter)
    assert lines == ["left out after 0 s: 2 tests of tests/test_cli.py (2)"]
    Budget(60).pytest_terminal_summary(reporter)
    assert len(lines) == 1
