"""Runs of an embedding model: contrastive and classification stages, resume, export, check, show."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_runs import metrics, resume_copy, same_weights
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
def finished_run(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    mmpost.train(**settings, out=str(out))
    return out


def test_contrastive_and_classification_stages_learn(finished_run: Path) -> None:
    lines = metrics(finished_run)
    contrastive, classification = ([x for x in lines if x["stage"] == name] for name in ("compare", "class"))
    assert contrastive[-1]["loss"] < contrastive[0]["loss"] - 0.3
    assert contrastive[-1]["accuracy/wave-row"] > contrastive[0]["accuracy/wave-row"]
    assert {"scale/wave-strip", "loss/strip-row", "accuracy"} <= contrastive[0].keys()
    assert classification[-1]["accuracy"] > 0.9
    after = json.loads((finished_run / "summary.json").read_text())["eval_after"]
    assert after["objects/accuracy"]["value"] > 0.6


@pytest.mark.parametrize("step", [7, 27])
def test_resuming_in_either_stage_is_bit_identical(step: int, finished_run: Path, tmp_path: Path) -> None:
    run = resume_copy(finished_run, step, tmp_path / "run")
    assert same_weights(run, finished_run)
    assert metrics(run) == metrics(finished_run)


def test_resuming_keeps_the_head_added_by_edits(settings: dict[str, Any], tmp_path: Path) -> None:
    two_heads = {**settings, "task": {"name": TASK, "heads": 2}, "steps": 8}
    mmpost.train(**two_heads, out=str(tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "run", symlinks=True)
    mmpost.train(resume=str(tmp_path / "run" / "checkpoints" / "step-6"))
    assert same_weights(tmp_path / "run", tmp_path / "whole")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_a_run_is_a_model_to_evaluate_load_and_export(
    finished_run: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    scores = mmpost.evaluate(task=settings["task"], model=str(finished_run), out=str(tmp_path / "eval"))["scores"]
    after = json.loads((finished_run / "summary.json").read_text())["eval_after"]
    assert scores["objects/accuracy"]["value"] == pytest.approx(after["objects/accuracy"]["value"])
    out = export([f"model={finished_run}", f"out={tmp_path / 'exported'}"])
    assert "mmpost.load" in (out / "README.md").read_text()
    loaded = mmpost.load(str(out))
    assert isinstance(loaded, Embedder)
    assert loaded.module.head is not None
    frozen = {**settings, "model": {"name": str(finished_run), "freeze": ["wave", "scale"]}, "steps": 2}
    mmpost.train(**frozen, out=str(tmp_path / "on"))
    with pytest.raises(ConfigError, match="wanted a chat model"):
        from mmpost.commands.predict import predict

        predict([{"task": settings["task"], "model": str(finished_run), "out": str(tmp_path / "said.jsonl")}])


def test_check_covers_an_embedding_run(settings: dict[str, Any]) -> None:
    output = io.StringIO()
    report = Report(Console(file=output, width=200))
    assert check([{k: v for k, v in settings.items() if k in ("model", "task")}], report) == 0, output.getvalue()
    for text in ("wave", "projector", "first forward", "embeddings strip", "gradient norm"):
        assert text in output.getvalue(), text


def test_show_displays_samples_of_an_embedding_run(settings: dict[str, Any]) -> None:
    from mmpost.commands.show import show_task

    output = io.StringIO()
    show_task([f"task={TASK}", f"model={settings['model']['name']}"], 2, Console(file=output, width=200))
    assert "3 encoders" in output.getvalue() or "2 encoders" in output.getvalue()
