"""Tuning: the runs that it needs, the values that it chooses, and grids that are extended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from mmpost.studies.cells import Runner
from mmpost.studies.results import Result
from mmpost.studies.study import TUNING_SEED, Cell, Study, Variant, points, widened
from mmpost.studies.tuning import tune

A, B = Variant("a"), Variant("b")


class KnownResult(Result):
    """A run with a known metric on val: best at 1e-3, and higher for each further seed."""

    def val_metric(self, name: str) -> float:
        assert name == {"a": "x/f1", "b": "-x/loss"}[self.cell.arm]
        known = {1e-5: 0.0, 1e-4: 1.0, 1e-3: 5.0, 1e-2: 3.0}
        return known[self.cell.values["optim.lr"]] + self.cell.seed - TUNING_SEED


class RecordingRunner(Runner):
    def run_from_starts(self, pairs: Sequence[tuple[Cell | None, Cell]]) -> list[Result]:
        self.code += " ".join(f"{one.arm}:{one.steps}:{one.tuning}" for _, one in pairs) + ";"
        return [KnownResult(one, self.folder) for _, one in pairs]


def study(arm: str, values: Sequence[float], **settings: int) -> Study:
    return Study.model_validate(
        {"task": "visurf", "arms": {arm: {}}, "tune": {"optim.lr": values}, "tune_seeds": 2, **settings}
    )


def test_each_arm_uses_the_best_point_of_its_grid_and_a_single_point_is_not_tuned(tmp_path: Path) -> None:
    runner = RecordingRunner(tmp_path, "")
    studies = {A: study("a", [1e-4, 1e-3, 1e-2]), B: study("b", [1e-2])}
    tuned = tune(runner, studies, {A: 7, B: 9}, {A: "x/f1", B: "-x/loss"})
    assert runner.code == " ".join(["a:7:True"] * 6) + ";"
    assert [(point["val"], point["seeds"]) for point in tuned[A]["tuning"]] == [
        (1.5, [1, 2]),
        (5.5, [5, 6]),
        (3.5, [3, 4]),
    ]
    assert tuned[B]["tuning"] == [{"values": {"optim.lr": 1e-2}, "val": 0.0, "seeds": []}]
    assert {arm: one["chosen"] for arm, one in tuned.items()} == {A: {"optim.lr": 1e-3}, B: {"optim.lr": 1e-2}}


def test_a_grid_is_extended_until_the_best_point_is_inside(tmp_path: Path) -> None:
    runner = RecordingRunner(tmp_path, "")
    tuned = tune(runner, {A: study("a", [1e-5, 1e-4])}, {A: 7}, {A: "x/f1"})
    assert [point["values"]["optim.lr"] for point in tuned[A]["tuning"]] == [1e-5, 1e-4, 1e-3, 1e-2]
    assert tuned[A]["chosen"] == {"optim.lr": 1e-3}
    assert runner.code.count(";") == 3
    stopped = tune(RecordingRunner(tmp_path, ""), {A: study("a", [1e-5, 1e-4], widen=1)}, {A: 7}, {A: "x/f1"})
    assert [point["values"]["optim.lr"] for point in stopped[A]["tuning"]] == [1e-5, 1e-4, 1e-3]


def test_widened_grids_go_on_in_the_ratio_of_their_last_values() -> None:
    grid = {"optim.lr": [1e-4, 3e-4, 1e-3], "other": [2.0]}
    assert widened(grid, {"optim.lr": 3e-4, "other": 2.0}) == {"optim.lr": (1e-4, 3e-4, 1e-3), "other": (2.0,)}
    assert widened(grid, {"optim.lr": 1e-4, "other": 2.0})["optim.lr"] == pytest.approx((3.33e-5, 1e-4, 3e-4, 1e-3))
    assert widened(grid, {"optim.lr": 1e-3, "other": 2.0})["optim.lr"] == pytest.approx((1e-4, 3e-4, 1e-3, 3.33e-3))
    assert points(widened(grid, {"optim.lr": 3e-4, "other": 2.0}))[1] == {"optim.lr": 3e-4, "other": 2.0}
