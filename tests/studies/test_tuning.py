"""Tuning: the runs that it needs, and the values that it chooses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpost.studies.cells import Result, Runner, tune
from mmpost.studies.study import TUNING_SEED, Cell, Study


class KnownResult(Result):
    """A run with a known metric on val: best at 1e-3, and higher for each further seed."""

    def val_metric(self, name: str) -> float:
        assert name == {"a": "x/f1", "b": "-x/loss"}[self.cell.arm]
        return {1e-4: 1.0, 1e-3: 5.0, 1e-2: 3.0}[self.cell.values["optim.lr"]] + self.cell.seed - TUNING_SEED


class RecordingRunner(Runner):
    def run_from_starts(self, pairs: Sequence[tuple[Cell | None, Cell]]) -> list[Result]:
        self.base = " ".join(f"{one.arm}:{one.steps}:{one.tuning}" for _, one in pairs)
        return [KnownResult(one, self.folder) for _, one in pairs]


def test_each_arm_uses_the_best_point_of_its_grid_and_a_single_point_is_not_tuned(tmp_path: Path) -> None:
    first = Study.model_validate(
        {"task": "visurf", "arms": {"a": {}}, "tune": {"optim.lr": [1e-4, 1e-3, 1e-2]}, "tune_seeds": 2}
    )
    second = Study.model_validate({"task": "visurf", "arms": {"b": {"tune": {"optim.lr": [1e-2]}}}})
    runner = RecordingRunner(tmp_path, "", "")
    tuned = tune(runner, {"a": first, "b": second}, {"a": 7, "b": 9}, {"a": "x/f1", "b": "-x/loss"})
    assert runner.base == " ".join(["a:7:True"] * 6)
    assert [(point["val"], point["seeds"]) for point in tuned["a"]["tuning"]] == [
        (1.5, [1, 2]),
        (5.5, [5, 6]),
        (3.5, [3, 4]),
    ]
    assert tuned["b"]["tuning"] == [{"values": {"optim.lr": 1e-2}, "val": 0.0, "seeds": []}]
    assert {arm: one["chosen"] for arm, one in tuned.items()} == {"a": {"optim.lr": 1e-3}, "b": {"optim.lr": 1e-2}}
