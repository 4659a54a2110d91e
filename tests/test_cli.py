"""The command line: help, lists and error messages, without importing torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mmpost import cli

WITHOUT_TORCH = """
import sys
from mmpost import cli
try:
    code = cli.main({words!r})
except SystemExit as e:
    code = e.code
assert "torch" not in sys.modules, "torch was imported"
sys.exit(code)
"""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    code = WITHOUT_TORCH.format(words=list(words))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_help_and_list_do_not_import_torch() -> None:
    help_text = run("--help")
    assert help_text.returncode == 0
    assert all(command in help_text.stdout for command in cli.COMMANDS)
    listed = run("list")
    assert listed.returncode == 0, listed.stderr
    assert "visurf" in listed.stdout
    assert "policy.PolicyLoss" in listed.stdout
    assert "policy_forms" not in listed.stdout


def test_an_unknown_key_is_reported_without_importing_torch() -> None:
    process = run("train", "task=visurf", "optm.lr=1")
    assert process.returncode == 1
    assert "did you mean optim.lr?" in process.stderr
    assert "Traceback" not in process.stderr


def test_an_unknown_task_suggests_the_closest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "task=visruf"]) == 1
    assert "did you mean visurf?" in capsys.readouterr().err


def test_an_unknown_task_field_suggests_the_closest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "task=visurf", "task.num_generatons=4"]) == 1
    assert "unknown key task.num_generatons; did you mean task.num_generations?" in capsys.readouterr().err


def test_list_of_a_task_shows_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "visurf"]) == 0
    output = capsys.readouterr().out
    assert "task.num_generations" in output
    assert "task.policy.clip_high" in output
