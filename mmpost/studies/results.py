"""What a study keeps of its finished runs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ValidationError

from mmpost.core import run_files
from mmpost.errors import DataError, TrainError
from mmpost.studies.study import Cell

SPENT = {"labels": "samples", "rollouts": "rollouts", "generated": "generated_tokens", "trained": "trained_tokens"}
"""What a run used up, and the name of its metric count/..."""


class Evaluated(BaseModel):
    """An evaluation on val during a run."""

    step: int
    metrics: dict[str, list[float]]
    """`mmpost.metrics.intervals.replicates`."""


class CellFile(BaseModel):
    """What a study keeps of a finished cell; with these files its result can be computed without the runs."""

    arm: str
    level: str
    seed: int
    steps: int
    values: dict[str, float]
    tuning: bool
    failure: str = ""
    """Why the run failed (for example, a non-finite loss); empty if it succeeded."""
    base: str
    """What it started from (`Runner.base`)."""
    base_hash: str
    """Of the weights of the base; empty where it started from another cell."""
    seconds: float = 0.0
    """Time of all optimizer steps including rollouts and rewards; without loading and evaluation."""
    wall: float = 0.0
    """Time of its process, everything included, also a base that it had to train; after an interruption, of the last
    one."""
    spent: dict[str, float] = {}
    """SPENT: labels presented, rollouts, tokens generated, tokens trained."""
    val: dict[str, float] = {}
    """The last evaluation on val."""
    test: dict[str, list[float]] = {}
    """The evaluation on test; `mmpost.metrics.intervals.replicates`."""
    curve: list[Evaluated] = []
    """Evaluations during a run, where the study asks for them."""


@dataclass(frozen=True)
class Result:
    """A cell and the folder of its run, beside which its CellFile lies."""

    cell: Cell
    folder: Path

    @property
    def file(self) -> Path:
        return self.folder.with_suffix(".json")

    @property
    def ended(self) -> bool:
        """Whether the run is done, or failed in training (then a repetition would fail, too)."""
        summary = run_files.read_summary(self.folder)
        return summary.get("status") == "done" or str(summary.get("reason", "")).startswith("TrainError")

    @property
    def finished(self) -> bool:
        return self.file.exists() or self.ended

    @cached_property
    def measured(self) -> CellFile:
        """The content of its file. Raises DataError where it is damaged."""
        try:
            return CellFile.model_validate_json(self.file.read_text(encoding="utf-8"))
        except (OSError, ValidationError, UnicodeDecodeError) as e:
            raise DataError(
                f"{self.file} is damaged ({run_files.first_reason(e)}); delete it to run the cell again"
            ) from e

    @property
    def failure(self) -> str:
        return self.measured.failure

    def successful(self) -> Result:
        """This result. Raises TrainError if the run failed."""
        if self.failure:
            raise TrainError(f"{self.cell.title} failed: {self.failure}; its folder is {self.folder}")
        return self

    @property
    def has_weights(self) -> bool:
        """Whether there is a checkpoint to resume, or to start another run from."""
        return (self.folder / "checkpoints" / "last").exists()

    def delete_weights(self) -> None:
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def val_metric(self, name: str) -> float:
        """The metric on val after the last step ("-bench/metric": negated); -inf for a failed run."""
        if self.failure:
            return -float("inf")
        return (-1.0 if name.startswith("-") else 1.0) * self.measured.val[name.removeprefix("-")]
