"""How far a run has moved from its start: measured under the start's own samples, and after a resume."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from small_runs import GROUPS

import mmpost
from mmpost.cli import main
from mmpost.config import run_config
from mmpost.core import run_files

SETTINGS = run_config.merge(
    GROUPS,
    {
        "task": {"measure_kl": True, "sampling": {"max_tokens": 6}, "bench_scenes": 6},
        "eval": {"max_samples": 0, "every": 1},
        "optim": {"lr": 3e-3},
        "checkpoint": {"every": 1, "keep": 9},
        "log": {"tensorboard": False},
        "steps": 3,
    },
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kl") / "run"
    mmpost.train(**SETTINGS, out=str(out))
    return out


def scores(run: Path, name: str) -> dict[str, tuple[str, float | None]]:
    """Reply and divergence of each prompt."""
    lines = run_files.read_lines(run / "eval" / f"{name}.jsonl", run_files.EvalLine)
    return {line["uid"]: (line["reply"], line["scores"]["kl"]) for line in lines if line["bench"] == "moved"}


def test_it_is_zero_at_the_start_and_grows(run: Path) -> None:
    before, after = scores(run, "before"), scores(run, "after")
    assert before.keys() == after.keys()
    assert len(before) == 6
    assert [kl for _, kl in before.values()] == pytest.approx([0] * 6, abs=1e-4)
    summary = run_files.read_summary(run)
    assert summary["eval_before"]["moved/kl"]["value"] == pytest.approx(0, abs=1e-4)
    assert summary["eval_after"]["moved/kl"]["value"] > 0.05
    values = [line["eval/moved/kl"] for line in run_files.read_metrics(run)]
    assert len(values) == 3
    assert values[-1] > 0.05


def test_training_is_not_changed_by_measuring_it(run: Path, tmp_path: Path) -> None:
    plain = run_config.merge(SETTINGS, {"task": {"measure_kl": False}})
    mmpost.train(**plain, out=str(tmp_path / "run"))
    for ours, theirs in zip(run_files.read_metrics(run), run_files.read_metrics(tmp_path / "run"), strict=True):
        assert (ours["loss"], ours["grad_norm"]) == (theirs["loss"], theirs["grad_norm"])


def test_a_resumed_run_still_knows_its_start(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    mmpost.train(resume=str(tmp_path / "run" / "checkpoints" / "step-1"))
    assert scores(tmp_path / "run", "after") == scores(run, "after")


def test_an_evaluation_without_training_leaves_it_out(run: Path, tmp_path: Path) -> None:
    arguments = ["task=visurf", f"model={run}", "task.measure_kl=true", "task.bench_scenes=2", f"out={tmp_path / 'e'}"]
    assert main(["eval", *arguments]) == 0
    names = json.loads((tmp_path / "e" / "eval.json").read_text())["scores"]
    assert "target/f1" in names
    assert not [name for name in names if name.startswith("moved/")]
