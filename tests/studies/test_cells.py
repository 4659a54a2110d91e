"""Which runs of a chain are trained and from which weights; without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmpost.errors import TrainError
from mmpost.studies.cells import Runner, _missing
from mmpost.studies.results import Result
from mmpost.studies.study import Cell


class FakeRunner(Runner):
    """Records requested runs and writes their results without training."""

    trained: list[tuple[str, str | None]]

    def base(self, cell: Cell) -> str:
        return "base"

    def _train(self, result: Result, start: Path | None) -> None:
        self.trained.append((result.cell.arm, start and start.name.partition("-")[0]))
        finish(result.folder, failed=result.cell.arm == "broken")


def finish(folder: Path, weights: bool = True, failed: bool = False) -> None:
    (folder / "checkpoints" / "last").mkdir(parents=True, exist_ok=True)
    if not weights:
        (folder / "checkpoints" / "last").rmdir()
    summary = (
        {"status": "failed", "reason": "TrainError: the loss is nan"} if failed else {"status": "done", "reason": ""}
    )
    (folder / "summary.json").write_text(json.dumps({**summary, "base_hash": "x"}))
    (folder / "metrics.jsonl").write_text("")


def forget(result: Result) -> None:
    (result.folder / "summary.json").unlink()
    result.file.unlink(missing_ok=True)


def cell(arm: str) -> Cell:
    return Cell(arm, {}, 0, 1, {"task": "visurf"})


def runner(folder: Path, **changes: Any) -> FakeRunner:
    new_runner = FakeRunner(folder, "code", log=lambda _: None, **changes)
    new_runner.trained = []
    return new_runner


def test_each_cell_starts_from_the_previous_one_and_weights_are_deleted_when_no_longer_needed(tmp_path: Path) -> None:
    cells = [cell("a"), cell("b"), cell("c")]
    first = runner(tmp_path)
    (results,) = first.run_chains([cells])
    assert first.trained == [("a", None), ("b", "a"), ("c", "b")]
    assert not any(result.has_weights for result in results)
    second = runner(tmp_path)
    assert second.run_chains([cells]) == [results]
    assert second.trained == []
    keeping = runner(tmp_path / "kept", keep=True)
    assert all(result.has_weights for result in keeping.run_chains([cells])[0])


def test_a_chain_continues_from_the_weights_that_exist(tmp_path: Path) -> None:
    cells = [cell("a"), cell("b"), cell("c")]
    results = runner(tmp_path)._results(cells)
    finish(results[0].folder, weights=False)
    finish(results[1].folder)
    assert _missing(results) == [False, False, True]
    test_runner = runner(tmp_path)
    test_runner.run_chains([cells])
    assert test_runner.trained == [("c", "b")]
    # The weights in the middle of an unfinished chain were deleted: it restarts from the last ones that exist.
    forget(results[2])
    assert _missing(results) == [True, True, True]
    finish(results[0].folder)
    assert _missing(results) == [False, True, True]


def test_a_chain_stops_at_a_run_that_fails_and_one_run_alone_may_fail(tmp_path: Path) -> None:
    test_runner = runner(tmp_path)
    with pytest.raises(TrainError, match="broken seed=0 steps=1 failed: TrainError: the loss is nan"):
        test_runner.run_chains([[cell("broken"), cell("b")]])
    assert test_runner.trained == [("broken", None)]
    second = runner(tmp_path)
    with pytest.raises(TrainError, match="failed"):
        second.run_chains([[cell("broken"), cell("b")]])
    assert second.trained == []
    assert test_runner.run([cell("broken")])[0].val_metric("x") == -float("inf")


def test_the_model_of_a_later_run_is_the_folder_of_the_previous_one(tmp_path: Path) -> None:
    new_runner = Runner(tmp_path, "code", launch="true", log=lambda _: None)
    new_runner._slots = [0]
    new_runner._bases["tiny", 0, 0] = "base"
    (result,) = new_runner._results([cell("b")])
    with pytest.raises(TrainError, match="exit code 0"):  # `true` writes no run
        new_runner._train(result, tmp_path / "a run")
    written = yaml.safe_load(result.folder.with_suffix(".yaml").read_text())
    assert written["model"] == {"name": str(tmp_path / "a run"), "base_seed": 0}


def test_a_start_shared_by_several_cells_is_trained_once(tmp_path: Path) -> None:
    first, second, other = cell("first"), cell("second"), Cell("other", {}, 1, 1, {"task": "visurf", "seed": 1})
    shared, other_seed = cell("shared"), Cell("shared", {}, 1, 1, {"task": "visurf", "seed": 1})
    pairs = [(shared, first), (shared, second), (other_seed, other), (None, cell("alone"))]
    test_runner = runner(tmp_path, jobs=2)
    results = test_runner.run_from_starts(pairs)
    assert [result.cell.arm for result in results] == ["first", "second", "other", "alone"]
    assert sorted(test_runner.trained, key=str) == sorted(
        [("shared", None), ("first", "shared"), ("second", "shared"), ("shared", None), ("other", "shared"),
         ("alone", None)], key=str,
    )  # fmt: skip
    assert not list(tmp_path.rglob("checkpoints"))
    again = runner(tmp_path)
    assert again.run_from_starts(pairs) == results
    assert again.trained == []
    # One cell must be repeated, and the weights it starts from are gone: the start is trained again, once.
    forget(results[1])
    third = runner(tmp_path)
    third.run_from_starts(pairs)
    assert third.trained == [("shared", None), ("second", "shared")]
