"""A learning rate that follows evaluations, and early stopping: resumed exactly, refused where nothing is evaluated."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_runs import metrics, resume_copy, same_weights
from towers_task import write

import mmpost
from mmpost.checks.check import check
from mmpost.checks.report import Report
from mmpost.config import run_config
from mmpost.errors import ConfigError

TASK = str(Path(__file__).parents[1] / "support" / "towers_task.py")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Accuracy is evaluated after every second step; `lr` is so small that it stays the same."""
    return {
        "model": {"name": write(tmp_path_factory.mktemp("model") / "towers", dropout=0.1)},
        "task": {"name": TASK},
        "eval": {"before": False, "after": False, "every": 2},
        "log": {"progress": False, "tensorboard": False},
        "checkpoint": {"every": 1, "keep": 99},
        "optim": {
            **{"name": "adam", "lr": 1e-6, "weight_decay_on": "all", "monitor": "objects/accuracy"},
            **{"schedule": "plateau", "plateau_factor": 0.5, "plateau_patience": 1},
        },
        "steps": 24,
    }


@pytest.fixture(scope="module")
def finished_run(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    mmpost.train(
        run_config.merge(settings, {"stages": {"compare": {"optim": {"early_stopping_patience": 3}}}}), out=str(out)
    )
    return out


def test_the_rate_falls_and_the_stage_ends(finished_run: Path) -> None:
    """Evaluations after steps 2, 4, ...: the second and third without an improvement halve the rate, each time anew."""
    lines = metrics(finished_run)
    accuracy = {line["eval/objects/accuracy"] for line in lines if "eval/objects/accuracy" in line}
    assert len(accuracy) == 1
    compare, classify = ([x for x in lines if x["stage"] == name] for name in ("compare", "class"))
    assert [line["lr"] for line in compare] == pytest.approx([1e-6] * 6 + [5e-7] * 2)
    assert [line["lr"] for line in classify] == pytest.approx([1e-6] * 6 + [5e-7] * 4 + [2.5e-7] * 2)
    assert [line["step"] for line in lines] == list(range(1, 21))
    summary = json.loads((finished_run / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("done", 20)


@pytest.mark.parametrize("step", [3, 6, 7, 8, 11, 15])
def test_resuming_is_bit_identical(step: int, finished_run: Path, tmp_path: Path) -> None:
    """Before and after the rate falls, at the end of the stage that stops early (8), and in the stage after it."""
    run = resume_copy(finished_run, step, tmp_path / "run")
    assert same_weights(run, finished_run)
    assert metrics(run) == metrics(finished_run)


def test_a_finished_run_that_ended_a_stage_early_is_not_resumed(finished_run: Path) -> None:
    with pytest.raises(ConfigError, match="is at step 20 of 24; set steps=N for more"):
        mmpost.train(resume=str(finished_run))


def test_a_plateau_needs_evaluations(settings: dict[str, Any], tmp_path: Path) -> None:
    refused = (
        (
            {"eval": {"every": 0}},
            "stage 'compare': optim.schedule=plateau follows evaluations on val, but eval.every=0",
        ),
        (
            {"eval": {"every": 0}, "optim": {"schedule": "cosine", "early_stopping_patience": 1}},
            "optim.early_stopping_patience follows evaluations on val, but eval.every=0",
        ),
        (
            {"optim": {"monitor": "object/accuracy"}},
            r"a metric of the evaluations on val \(objects/...\), found 'object",
        ),
        ({"optim": {"monitor": ""}}, "found ''; set it"),
    )
    for changes, message in refused:
        changed = run_config.merge(settings, changes)
        with pytest.raises(ConfigError, match=message):
            mmpost.train(changed, out=str(tmp_path / "run"))
        screen = io.StringIO()
        assert check([changed], Report(Console(file=screen))) == 1
        assert re.search(message, " ".join(screen.getvalue().split()))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_metric_that_no_evaluation_has_ends_the_run(settings: dict[str, Any], tmp_path: Path) -> None:
    changed = run_config.merge(settings, {"optim": {"monitor": "objects/loss"}})
    with pytest.raises(ConfigError, match="found 'objects/loss', which is not among objects/accuracy; correct it"):
        mmpost.train(changed, out=str(tmp_path / "run"))
