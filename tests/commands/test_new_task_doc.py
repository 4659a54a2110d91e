"""docs/new-task.md, run exactly as written in an empty folder, with generated images."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from mmpost.cli import main
from mmpost.commands import new_task
from mmpost.errors import ConfigError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "new-task.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"`([\w.-]+\.\w+)`:\n\n$")


def draw() -> None:
    for name, colour in (("apple", "red"), ("pear", "green")):
        folder = Path("images") / name
        folder.mkdir(parents=True)
        for i in range(1, 11):
            Image.new("RGB", (50 + i, 60), colour).save(folder / f"{i}.jpg")


def edit(file: Path, diff: str) -> None:
    """Put the lines with + in the place of the lines with -, which must be there once."""
    lines = diff.splitlines()
    assert {line[0] for line in lines} == {"-", "+"}
    old = "\n".join(line[1:] for line in lines if line[0] == "-") + "\n"
    text = file.read_text()
    assert text.count(old) == 1, old
    file.write_text(text.replace(old, "\n".join(line[1:] for line in lines if line[0] == "+") + "\n"))


def run(command: str) -> str:
    words = shlex.split(command)
    if words[0] == "mmpost":
        assert main(words[1:]) == 0, command
        return ""
    assert words[0] == "python"
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MMPOST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    for name in ("fruit", "outside_new"):
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_the_code_of_the_page_works_unchanged(empty: Path) -> None:
    draw()
    page, kinds, said = PAGE.read_text(), set(), ""
    for block in BLOCK.finditer(page):
        kind, text = block[1], block[2]
        kinds.add(kind)
        name = NAMED.search(page[: block.start()])
        if kind == "bash" and not text.startswith("# needs a GPU"):
            for command in text.splitlines():
                said = run(command)
        elif kind == "diff":
            edit(Path("fruit.py"), text)
        elif name:
            Path(name[1]).write_text(text)
    assert kinds == {"text", "bash", "diff", "yaml", "python"}
    predicted = {row["uid"]: row["reply"] for row in map(json.loads, Path("replies.jsonl").read_text().splitlines())}
    assert {Path(uid).parts[0] for uid in predicted} == {"apple", "pear"}
    for uid in list(predicted)[:2]:
        assert run(f"python use.py images/{uid}") == predicted[uid] + "\n"
    assert said
    assert Path("runs/first/report.html").exists()
    assert "lines that work" in page
    assert f"{len(template().splitlines())} lines that work" in page


def template() -> str:
    return (Path(new_task.__file__).parent / "templates" / "task.py.txt").read_text()


def test_a_new_task_is_short_and_runs(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-task", "outside_new"]) == 0
    assert [p.name for p in empty.iterdir()] == ["outside_new.py"]
    assert len(Path("outside_new.py").read_text().splitlines()) <= 45
    assert "$" not in Path("outside_new.py").read_text()
    suggested = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mmpost ")]
    assert [line.split()[1] for line in suggested] == ["check", "train"]
    for line in suggested:
        run(line)
    assert len(list(empty.glob("runs/outside_new/*/summary.json"))) == 1


def test_invalid_task_names_are_refused(empty: Path) -> None:
    Path("here.py").write_text("")
    for name, said in (
        ("my-task", "name that Python can import"),
        ("class", "name that Python can import"),
        ("visurf", "there is a task named visurf"),
        ("json", "a module named json is installed"),
        ("here", "exists; name another"),
    ):
        with pytest.raises(ConfigError, match=said):
            new_task.write(name)
    assert main(["new-task"]) == main(["new-task", "a", "b"]) == main(["new-task", "a", "outt=x"]) == 1
    assert [p.name for p in empty.iterdir()] == ["here.py"]
    assert new_task.write("outside_new", "some/folder") == Path("some/folder/outside_new.py")
