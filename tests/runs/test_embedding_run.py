"""A run on a model of towers: compared, classed, stopped, gone on with, exported, checked, shown."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_runs import metrics, same_weights
from towers_task import write

import mmpost
from mmpost.checks.check import check
from mmpost.checks.report import Report
from mmpost.commands.export import export
from mmpost.errors import ConfigError
from mmpost.models.embedding.model import Embedder

TASK = str(Path(__file__).parents[1] / "support" / "towers_task.py")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model = write(tmp_path_factory.mktemp("model") / "towers", dropout=0.1)
    return {
        "model": {"name": model},
        "task": {"name": TASK},
        "eval": {"before": False},
        "log": {"progress": False, "tensorboard": False},
        "checkpoint": {"every": 1, "keep": 99},
        "compute": {"max_replies_per_microbatch": 6},
        "steps": 40,
    }


@pytest.fixture(scope="module")
def whole(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    mmpost.train(**settings, out=str(out))
    return out


def test_it_learns_to_compare_and_to_class(whole: Path) -> None:
    lines = metrics(whole)
    compared, classed = ([x for x in lines if x["stage"] == name] for name in ("compare", "class"))
    assert compared[-1]["loss"] < compared[0]["loss"] - 0.3
    assert compared[-1]["accuracy/wave-row"] > compared[0]["accuracy/wave-row"]
    assert {"scale/wave-strip", "loss/strip-row", "accuracy"} <= compared[0].keys()
    assert classed[-1]["accuracy"] > 0.9
    after = json.loads((whole / "summary.json").read_text())["eval_after"]
    assert after["objects/accuracy"]["value"] > 0.6


@pytest.mark.parametrize("step", [7, 27])
def test_going_on_from_either_stage_ends_in_the_same_bits(step: int, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run, symlinks=True)
    mmpost.train(resume=str(run / "checkpoints" / f"step-{step}"))
    assert same_weights(run, whole)
    assert metrics(run) == metrics(whole)


def test_going_on_keeps_the_head_that_edits_of_two_stages_made(settings: dict[str, Any], tmp_path: Path) -> None:
    two = {**settings, "task": {"name": TASK, "heads": 2}, "steps": 8}
    mmpost.train(**two, out=str(tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "run", symlinks=True)
    mmpost.train(resume=str(tmp_path / "run" / "checkpoints" / "step-6"))
    assert same_weights(tmp_path / "run", tmp_path / "whole")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_a_run_is_a_model_to_evaluate_load_and_export(whole: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    scores = mmpost.evaluate(task=settings["task"], model=str(whole), out=str(tmp_path / "eval"))["scores"]
    after = json.loads((whole / "summary.json").read_text())["eval_after"]
    assert scores["objects/accuracy"]["value"] == pytest.approx(after["objects/accuracy"]["value"])
    out = export([f"model={whole}", f"out={tmp_path / 'exported'}"])
    assert "mmpost.load" in (out / "README.md").read_text()
    loaded = mmpost.load(str(out))
    assert isinstance(loaded, Embedder)
    assert loaded.module.head is not None
    frozen = {**settings, "model": {"name": str(whole), "freeze": ["wave", "scale"]}, "steps": 2}
    mmpost.train(**frozen, out=str(tmp_path / "on"))
    with pytest.raises(ConfigError, match="wanted a chat model"):
        from mmpost.commands.predict import predict

        predict([{"task": settings["task"], "model": str(whole), "out": str(tmp_path / "said.jsonl")}])


def test_check_takes_it_through_every_step(settings: dict[str, Any]) -> None:
    said = io.StringIO()
    report = Report(Console(file=said, width=200))
    assert check([{k: v for k, v in settings.items() if k in ("model", "task")}], report) == 0, said.getvalue()
    for word in ("wave", "projector", "first forward", "embeddings strip", "gradient norm"):
        assert word in said.getvalue(), word


def test_show_draws_its_samples(settings: dict[str, Any]) -> None:
    from mmpost.commands.show import show_task

    said = io.StringIO()
    show_task([f"task={TASK}", f"model={settings['model']['name']}"], 2, Console(file=said, width=200))
    assert "3 encoders" in said.getvalue() or "2 encoders" in said.getvalue()
