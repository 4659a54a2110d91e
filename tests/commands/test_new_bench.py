"""`mmpost new-bench NAME`: what it writes runs, and its test passes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmpost.cli import main
from mmpost.commands import new_task
from mmpost.errors import ConfigError


def test_a_new_bench_and_its_test_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-bench", "outside_bench", f"out={tmp_path}"]) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["outside_bench.py", "test_outside_bench.py"]
    assert "$" not in "".join(file.read_text() for file in tmp_path.iterdir())
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "test_outside_bench.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
    suggested = capsys.readouterr().out.splitlines()[-1]
    assert suggested == f"mmpost score bench={tmp_path / 'outside_bench.py'} predictions=FILE data.benches=FOLDER"
    (tmp_path / "outside_bench.jsonl").write_text(
        '{"id": "1", "image": "a.jpg", "question": "?", "options": ["x", "y"], "answer": "A", "category": "c"}\n'
    )
    (tmp_path / "p.json").write_text('{"1": "A"}')
    words = suggested.replace("FILE", str(tmp_path / "p.json")).replace("FOLDER", str(tmp_path)).split()
    assert main(words[1:]) == 0
    assert "accuracy/c" in capsys.readouterr().out


def test_taken_names_are_refused(tmp_path: Path) -> None:
    for name, message in (
        ("pope", "a bench named pope exists already"),
        ("my-bench", "name that Python can import"),
        ("json", "a module named json is installed"),
    ):
        with pytest.raises(ConfigError, match=message):
            new_task.write_bench(name, str(tmp_path))
    assert not list(tmp_path.iterdir())
