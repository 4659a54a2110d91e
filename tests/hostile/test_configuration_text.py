"""YAML and arguments that no setting can hold: refused in a sentence, before anything is loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mmpost.cli import main
from mmpost.config import parsing, run_config
from mmpost.config.parsing import parse_argument, parse_yaml
from mmpost.errors import ConfigError

ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
DOCUMENTS = {
    "repeated key": ("task: sft\nsteps: 3\nsteps: 4\n", "'steps' occurs twice"),
    "repeated key in a section": ("data: {train: a, train: b}", "'train' occurs twice"),
    "recursive list": ("a: &a [*a]", "contains it"),
    "recursive mapping": ("&a\ntask: sft\ndata: *a", "contains it"),
    "aliases of aliases": (ALIASES, "fewer aliases"),
    "deep": ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
    "quite deep": ("a: " + "[" * 90 + "]" * 90, "levels"),
    "wrong tag": ("a: !!int x", "not valid YAML"),
    "python object": ("a: !!python/object/apply:os.getcwd []", "not valid YAML"),
}


@pytest.mark.parametrize(("text", "message"), DOCUMENTS.values(), ids=list(DOCUMENTS))
def test_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    assert main(["train", f"config={file}"]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert str(file) in err
    assert len(err) < 1000


def test_yaml_that_is_not_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_bytes(b"task: \xff")
    assert main(["train", f"config={tmp_path / 'run.yaml'}"]) == 1
    assert "wanted a YAML file in UTF-8" in capsys.readouterr().err


def test_anchors_still_work() -> None:
    shared = {"x": 1, "y": 2}
    assert parse_yaml("a: &a {x: 1, y: 2}\nc: [*a, *a]\n", "x") == {"a": shared, "c": [shared, shared]}


def test_keys_are_text_as_written() -> None:
    """A run writes its settings as JSON, in which they are: they were not equal when read again."""
    text = "{0: a, 1.50: b, true: c, ~: d, '7': {08: e}}"
    expected = {"0": "a", "1.50": "b", "true": "c", "~": "d", "7": {"08": "e"}}
    assert parse_yaml(text, "x") == parse_yaml(json.dumps(expected), "x") == expected


@pytest.mark.parametrize("key", ["optim.max_grad_norm", "task.policy.cispo_cap", "task.anything"])
def test_no_bound_is_no_bound_once_it_was_stored(key: str) -> None:
    config, _ = run_config.load(["task=visurf", f"{key}=.inf"])
    stored = parsing.dump(config.model_dump(mode="json"))
    assert run_config.load([parse_yaml(stored, "config.yaml")])[0] == config


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[" * 5000, "nested too deeply"),
        ("[" * 90 + "]" * 90, "levels"),
        ("&a [*a]", "contains it"),
        ("{a: 1, a: 2}", "'a' occurs twice"),
    ],
)
def test_arguments(capsys: pytest.CaptureFixture[str], value: str, message: str) -> None:
    assert main(["train", "task=sft", f"data.train={value}"]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert "data.train" in err
    assert len(err) < 1000


def test_brackets_that_are_no_yaml_are_text() -> None:
    assert parse_argument("data.prompt={question} now") == {"data": {"prompt": "{question} now"}}


@pytest.mark.parametrize("command", ["train", "check", "score"])
def test_a_key_twice_on_the_command_line(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main([command, "task=sft", "steps=2", "steps=3"]) == 1
    assert "steps: wanted one value, found '2', '3'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["model=a", "model.name=b"],
            "model.name: wanted one value, found model=a and model.name=b; remove one of them",
        ),
        (["task.name=sft", "task=visurf"], "task.name: wanted one value, found task.name=sft and task=visurf"),
        (["optim={lr: 1}", "optim.lr=2"], "optim.lr: wanted one value, found optim={lr: 1} and optim.lr=2"),
        (["optim.lr=2", "optim={eps: 1, lr: 1}"], "optim.lr: wanted one value, found optim.lr=2 and optim={eps: 1"),
        (["model.lora=null", "model.lora.rank=4"], "model.lora: wanted one value, found model.lora=null and"),
        (["optim.lr=1", "optim=2"], "optim: wanted one value, found optim.lr=1 and optim=2"),
    ],
)
def test_arguments_that_set_the_same_setting(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parsing.refuse_repeated(arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "contradiction"),
    [
        (["model=x", "model.lora.rank=4", "model.name=x"], "model.lora.rank=5"),
        (["task=visurf", "task.scenes=4", "config=mine.yaml", "optim={lr: 1}", "optim.eps=1"], "optim.eps=2"),
        (
            ["eval.tasks.a.task=sft", "eval.tasks.a.task.studies=3", "eval.tasks.a={task: sft}"],
            "eval.tasks.a.task=grpo",
        ),
        (["RUN", "steps", "optim={", "data.train=[a, b]", "rewards={}", "rewards.a=b"], "rewards.a=c"),
    ],
)
def test_arguments_that_complete_each_other(arguments: list[str], contradiction: str) -> None:
    parsing.refuse_repeated(arguments)
    with pytest.raises(ConfigError, match="wanted one value"):
        parsing.refuse_repeated([*arguments, contradiction])


def test_a_key_twice_is_an_error_of_its_own() -> None:
    with pytest.raises(ConfigError, match="occurs twice"):
        parse_yaml("a: 1\na: 1", "x")


@pytest.mark.parametrize("key", ["data.train", "task", "model"])
def test_names_that_no_file_can_have(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Asking the system about such a path raises OSError, not "not found"."""
    arguments = {"task": "sft", "model": "random-tiny", key: "9" * 5000}
    assert main(["train", *(f"{name}={value}" for name, value in arguments.items())]) == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert len(err) < 3000


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for out, reason in (("x" * 300, "File name too long"), ("file/inside", "Not a directory")):
        assert main(["new-task", "mine", f"out={tmp_path / out}"]) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"mmpost: {tmp_path}")
        assert err.endswith(f"{reason}; correct the path or its rights\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "config=bad.yaml"],
        ["compare", "study=bad.yaml"],
        ["continual", "study=bad.yaml"],
        ["export", "model=bad.yaml", "out=x"],
        ["train", "task=visurf", "model=random-tiny", "data.manifest=bad.yaml"],
    ],
)
def test_text_that_is_not_utf_8_is_refused_by_name(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_bytes(b"a: \xae\n")
    assert main(arguments) == 1
    assert re.search(r"bad\.yaml:.* wanted a (YAML file in UTF-8|JSON object with a uid)", capsys.readouterr().err)
