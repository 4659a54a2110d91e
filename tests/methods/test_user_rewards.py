"""User rewards from a file are added to those of the task, in training and evaluation."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_runs import GROUPS

import mmpost
from mmpost.config import run_config
from mmpost.errors import ConfigError, PluginError
from mmpost.runs.configured_task import ConfiguredTask
from mmpost.transforms.score import Score

REWARD = """
def short(sample, reply):
    return 0.25 if len(reply.text) < 1000 else 0.0
"""


@pytest.fixture
def reward_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "outside_rewards.py").write_text(REWARD)
    yield str(tmp_path / "outside_rewards.py")
    sys.modules.pop("outside_rewards", None)


def test_a_reward_from_a_file_is_trained_on_logged_and_reported(reward_file: str, tmp_path: Path) -> None:
    summary = mmpost.train(f"rewards.short={reward_file}:short*0.5", f"out={tmp_path / 'run'}", **GROUPS)
    assert summary["eval_after"]["target/short"]["value"] == 0.25
    assert summary["eval_after"]["old/short"]["value"] == 0.25
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert line["reward/short"] == 0.25
    replies = [
        json.loads(text) for text in next((tmp_path / "run" / "samples").glob("*.jsonl")).read_text().splitlines()
    ]
    for reply in (r for r in replies if r["origin"] == "policy"):
        parts = sum(value for name, value in reply["scores"].items() if name != "short")
        assert reply["columns"]["reward"] == pytest.approx(parts + 0.125)


def test_the_default_weight_is_one(reward_file: str) -> None:
    run, _ = run_config.load([{"task": "visurf", "rewards": {"short": f"{reward_file}:short"}}])
    score = next(t for stage in ConfiguredTask.load(run).stages() for t in stage.transforms if isinstance(t, Score))
    assert score.weights["short"] == 1.0


def test_invalid_combinations_are_refused(reward_file: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"query": "a", "response": "b"}\n')
    for task, name, function, error_class, message in (
        ("sft", "short", "short", ConfigError, "the task scores no replies in training"),
        ("visurf", "think_format", "short", ConfigError, "the task has a reward of that name"),
        ("visurf", "short", "shrot", PluginError, "did you mean short"),
    ):
        settings = {"task": task, "data": {"train": str(rows)} if task == "sft" else {}}
        run, _ = run_config.load([{**settings, "rewards": {name: f"{reward_file}:{function}"}}])
        with pytest.raises(error_class, match=message):
            list(ConfiguredTask.load(run).stages())
