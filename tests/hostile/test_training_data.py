"""Data that a run or a check cannot use as it is: told at once, or learned from as the README says."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

import mmpost.runs.run
from mmpost.checks.check import check
from mmpost.checks.report import Report
from mmpost.cli import main

QUICK = ("steps=1", "eval.before=false", "eval.after=false", "compute.threads=1", "task.prompts_per_step=2")


@pytest.fixture
def train(tiny_folder: str, tmp_path: Path) -> Callable[..., int]:
    """Run `mmpost train` on the tiny model."""
    quiet = ("log.progress=false", "log.tensorboard=false", f"out={tmp_path / 'run'}", f"model={tiny_folder}")
    return lambda *arguments: main(["train", *QUICK, *quiet, *arguments])


def write(file: Path, *rows: Any) -> str:
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return str(file)


def test_unusable_data_are_refused_before_the_model_is_loaded(
    train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmpost.runs.run, "open_session", lambda *_: pytest.fail("the model was loaded"))
    assert train("task=sft", f"data.train={write(tmp_path / 'a.jsonl')}") == 1
    assert "a.jsonl: wanted rows, found none" in capsys.readouterr().err
    assert train("task=sft", "data.train=[[[[") == 1
    assert "found nothing at [[[[" in capsys.readouterr().err


def test_broken_rows_are_skipped_by_train(train: Callable[..., int], tmp_path: Path) -> None:
    digits, brackets = "9" * 5000, "[" * 50_000
    rows = [f'{{"query": "x", "n": {digits}}}', r'{"id": "\ud800"}', f'{{"query": {brackets}}}']
    (tmp_path / "a.jsonl").write_text("\n".join([*rows, '{"query": "x", "response": "y"}']))
    assert train("task=sft", f"data.train={tmp_path / 'a.jsonl'}", "data.on_error=skip") == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "done"


def test_prompts_beyond_the_positions_are_refused(
    train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = {"id": "mine", "query": "word " * 40_000, "response": "y"}
    data = write(tmp_path / "a.jsonl", {"query": "x", "response": "y"}, long)
    assert train("task=sft", f"data.train={data}") == 1
    err = capsys.readouterr().err
    assert "a.jsonl:2 (sample 'mine'): its prompt cannot be given to the model" in err
    assert "the positions of the model" in err


def test_prompts_beyond_the_positions_are_skipped(
    train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "a.jsonl", {"query": "word " * 40_000, "response": "y"}, {"query": "x", "response": "y"})
    assert train("task=sft", f"data.train={data}", "data.on_error=skip") == 0
    assert "the positions of the model" in capsys.readouterr().err


def test_a_folder_with_answers_as_subfolders_serves_sft(train: Callable[..., int], tmp_path: Path) -> None:
    for answer in ("cat", "dog"):
        (tmp_path / "images" / answer).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "images" / answer / "0.png")
    assert train("task=sft", f"data.train={tmp_path / 'images'}", "data.prompt=Which animal?") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert metrics["loss"] > 0
    samples = "".join(p.read_text() for p in (tmp_path / "run" / "samples").rglob("*.jsonl"))
    assert '"cat"' in samples
    assert '"dog"' in samples


def checked(model: str, data: str, *arguments: str) -> tuple[int, str]:
    out = io.StringIO()
    settings = ("task=sft", f"model={model}", f"data.train={data}", "compute.threads=1", *arguments)
    code = check(settings, Report(Console(file=out, width=200)))
    return code, out.getvalue()


def test_check_of_rows_of_text_says_what_to_freeze(tiny_folder: str, tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", *({"query": f"x {i}", "response": "y"} for i in range(4)))
    code, out = checked(tiny_folder, data)
    assert code == 0
    assert "model.freeze=[vision, projector]" in out
    code, out = checked(tiny_folder, data, "model.freeze=[vision, projector]")
    assert "give no gradient" not in out


def test_the_memory_of_a_step_counts_what_the_step_computes(tiny_folder: str, tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", *({"query": f"x {i}", "response": "y"} for i in range(4)))
    _, out = checked(tiny_folder, data, "task.prompts_per_step=4", "compute.max_tokens_per_microbatch=100000")
    tokens = int(out.partition("activations of ")[2].split()[0])
    assert 40 < tokens < 400
    _, out = checked(tiny_folder, data, "task.prompts_per_step=4", "compute.max_tokens_per_microbatch=20")
    assert "activations of 20 tokens" in out
