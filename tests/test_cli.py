"""The command line as a user meets it."""

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


def test_help_and_list_do_without_torch() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    assert all(command in shown.stdout for command in cli.COMMANDS)
    listed = run("list")
    assert listed.returncode == 0, listed.stderr
    assert "visurf" in listed.stdout
    assert "policy.PolicyLoss" in listed.stdout
    assert "policy_forms" not in listed.stdout


def test_a_wrong_key_is_answered_before_torch_is_there() -> None:
    wrong = run("train", "task=visurf", "optm.lr=1")
    assert wrong.returncode == 1
    assert "did you mean optim.lr?" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_wrong_task_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "task=visruf"]) == 1
    assert "did you mean visurf?" in capsys.readouterr().err


def test_a_wrong_field_of_a_task_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "task=visurf", "task.num_generatons=4"]) == 1
    assert "unknown key task.num_generatons; did you mean task.num_generations?" in capsys.readouterr().err


def test_list_of_a_task_shows_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "visurf"]) == 0
    shown = capsys.readouterr().out
    assert "task.num_generations" in shown
    assert "task.policy.clip_high" in shown
