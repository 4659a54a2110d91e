"""By default a run of any task saves checkpoints by time, which changes no number of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_runs import TWO_STAGES, metrics, resume_copy, same_weights

import mmpost
from mmpost.config import run_config
from mmpost.config.settings import CheckpointSettings
from mmpost.runs import run_state
from mmpost.runs.run_state import RunState

SETTINGS = run_config.merge(TWO_STAGES, {"steps": 4, "eval": {"before": False, "after": False}})


def test_the_default_saves_by_time() -> None:
    assert CheckpointSettings().every == 0
    assert 0 < CheckpointSettings().minutes <= 15


def test_checkpoints_by_time_change_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_state, "SAVING_SHARE", 0)
    for name, minutes in (("often", 1e-9), ("never", 0.0)):
        settings = run_config.merge(SETTINGS, {"checkpoint": {"every": 0, "minutes": minutes}})
        mmpost.train(**settings, out=str(tmp_path / name))
    steps = {
        name: sorted(p.name for p in (tmp_path / name / "checkpoints").glob("step-*")) for name in ("often", "never")
    }
    assert steps == {"often": [f"step-{n}" for n in range(1, 5)], "never": ["step-4"]}
    assert metrics(tmp_path / "often") == metrics(tmp_path / "never")
    assert same_weights(tmp_path / "often", tmp_path / "never")
    resumed = resume_copy(tmp_path / "often", 3, tmp_path / "resumed")
    assert same_weights(resumed, tmp_path / "never")
    assert metrics(resumed) == metrics(tmp_path / "never")


@pytest.mark.parametrize(
    ("minutes", "save_seconds", "elapsed", "due"),
    [(10, 1, 599, False), (10, 1, 601, True), (10, 60, 601, False), (10, 60, 1201, True), (0, 0, 10**9, False)],
)
def test_slow_saving_makes_checkpoints_rarer(
    minutes: float, save_seconds: float, elapsed: float, due: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_state.time, "monotonic", lambda: 1000.0 + elapsed)
    checkpoint = CheckpointSettings(minutes=minutes)
    state: Any = SimpleNamespace(
        session=SimpleNamespace(config=SimpleNamespace(checkpoint=checkpoint)),
        _last_save=1000.0,
        _save_seconds=save_seconds,
    )
    assert RunState.is_due(state) is due
