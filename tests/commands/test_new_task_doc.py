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
FILE_NAME = re.compile(r"`([\w.-]+\.\w+)`:\n\n$")


def write_images() -> None:
    for name, colour in (("apple", "red"), ("pear", "green")):
        folder = Path("images") / name
        folder.mkdir(parents=True)
        for i in range(1, 11):
            Image.new("RGB", (50 + i, 60), colour).save(folder / f"{i}.jpg")


def apply_diff(file: Path, diff: str) -> None:
    """Replace the lines with - by the lines with +; the former must occur exactly once."""
    lines = diff.splitlines()
    assert {line[0] for line in lines} == {"-", "+"}
    old = "\n".join(line[1:] for line in lines if line[0] == "-") + "\n"
    text = file.read_text()
    assert text.count(old) == 1, old
    file.write_text(text.replace(old, "\n".join(line[1:] for line in lines if line[0] == "+") + "\n"))


def run(command: str) -> str:
    arguments = shlex.split(command)
    if arguments[0] == "mmpost":
        assert main(arguments[1:]) == 0, command
        return ""
    assert arguments[0] == "python"
    process = subprocess.run([sys.executable, *arguments[1:]], capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MMPOST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    for name in ("fruit", "outside_new"):
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_the_code_of_the_page_works_unchanged(empty_folder: Path) -> None:
    write_images()
    page, languages, output = PAGE.read_text(), set(), ""
    for block in BLOCK.finditer(page):
        language, text = block[1], block[2]
        languages.add(language)
        name = FILE_NAME.search(page[: block.start()])
        if language == "bash" and not text.startswith("# needs a GPU"):
            for command in text.splitlines():
                output = run(command)
        elif language == "diff":
            apply_diff(Path("fruit.py"), text)
        elif name:
            Path(name[1]).write_text(text)
    assert languages == {"text", "bash", "diff", "yaml", "python"}
    predicted = {row["uid"]: row["reply"] for row in map(json.loads, Path("replies.jsonl").read_text().splitlines())}
    assert {Path(uid).parts[0] for uid in predicted} == {"apple", "pear"}
    for uid in list(predicted)[:2]:
        assert run(f"python use.py images/{uid}") == predicted[uid] + "\n"
    assert output
    assert Path("runs/first/report.html").exists()
    assert "lines that work" in page
    assert f"{len(template().splitlines())} lines that work" in page


def template() -> str:
    return (Path(new_task.__file__).parent / "templates" / "task.py.txt").read_text()


def test_a_new_task_is_short_and_runs(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-task", "outside_new"]) == 0
    assert [p.name for p in empty_folder.iterdir()] == ["outside_new.py"]
    assert len(Path("outside_new.py").read_text().splitlines()) <= 45
    assert "$" not in Path("outside_new.py").read_text()
    suggested = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mmpost ")]
    assert [line.split()[1] for line in suggested] == ["check", "train"]
    for line in suggested:
        run(line)
    assert len(list(empty_folder.glob("runs/outside_new/*/summary.json"))) == 1


def test_invalid_task_names_are_refused(empty_folder: Path) -> None:
    Path("here.py").write_text("")
    for name, message in (
        ("my-task", "name that Python can import"),
        ("class", "name that Python can import"),
        ("visurf", "a task named visurf exists already"),
        ("json", "a module named json is installed"),
        ("here", "exists; choose another"),
    ):
        with pytest.raises(ConfigError, match=message):
            new_task.write(name)
    assert main(["new-task"]) == main(["new-task", "a", "b"]) == main(["new-task", "a", "outt=x"]) == 1
    assert [p.name for p in empty_folder.iterdir()] == ["here.py"]
    assert new_task.write("outside_new", "some/folder") == Path("some/folder/outside_new.py")
