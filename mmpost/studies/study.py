"""The description of a study: named arms of one task, the grid to tune each on, and the runs (cells)."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, model_validator

from mmpost.config import parsing, run_config
from mmpost.config.run_config import RunConfig
from mmpost.config.settings import Settings
from mmpost.errors import ConfigError
from mmpost.runs.configured_task import ConfiguredTask
from mmpost.selection.manifest import read as read_manifest

S = TypeVar("S", bound="ArmsStudy")

ARM_OPTIONS = ("tune", "after", "against")
"""Keys of an arm that are options of the study rather than settings of its runs."""

TUNING_SEED = 1000
"""Added to the seeds of tuning runs, so that no arm is evaluated on a seed its values were selected with."""

CELL_SETTINGS: dict[str, Any] = {
    "eval": {"before": False},
    "log": {"progress": False, "tensorboard": False, "samples_every": 0, "probe_every": 0},
    "checkpoint": {"every": 0, "keep": 1},
    "max_zero_gradient_steps": 0,
}
"""Only final evaluations are compared; and a policy without gradient is a result, not an error."""


class ArmsStudy(Settings):
    """The common part of study files for `mmpost compare` and `mmpost continual`."""

    model: str | None = None
    """The model all runs start from; by default the task's."""
    set: dict[str, Any] = {}
    """Settings of all runs."""
    arms: dict[str, dict[str, Any]] = Field(min_length=1)
    """Settings of each arm by name. The option `tune` replaces the study's grid for this arm. In `mmpost compare`,
    `after` names the entry of `starts` whose weights the arm starts from, and `against` replaces the study's own."""
    tune: dict[str, tuple[float, ...]] = {}
    """Values to try for each setting; every arm takes the point with the best metric on val (`Task.best_metric`)."""
    tune_seeds: int = Field(default=1, ge=1)
    """Runs for each point of the grid."""
    against: str = ""
    """The arm that the others are compared with, sample by sample; empty: the last one."""

    @model_validator(mode="after")
    def _known_opponents(self) -> ArmsStudy:
        known = f"the study has the arms {', '.join(self.arms)}"
        for name, arm in self.arms.items():
            if arm.get("against", name) not in self.arms:
                raise ValueError(f"arm {name}: against={arm['against']!r}: {known}")
        if self.against and self.against not in self.arms:
            raise ValueError(f"against={self.against!r}: {known}")
        return self

    def opponent(self, arm: str) -> str:
        """The arm that `arm` is compared with: the one it names, else the study's."""
        return self.arms[arm].get("against") or self.against or list(self.arms)[-1]

    def select_arms(self: S, names: Sequence[str] | None) -> S:
        """The study with only these arms, in this order (None: all). Arms that name a removed arm as `against` are
        compared with the study's default instead. Raises ConfigError for an unknown name, or none at all."""
        if names is None:
            return self
        if not names or not self.arms.keys() >= set(names):
            raise ConfigError(f"arms={','.join(names)}: the study has the arms {', '.join(self.arms)}")
        arms = {name: self.arms[name] for name in names}
        for name, arm in arms.items():
            if arm.get("against") not in arms:
                arms[name] = {key: value for key, value in arm.items() if key != "against"}
        return self.model_copy(update={"arms": arms, "against": self.against if self.against in arms else ""})


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    arm: str
    values: Mapping[str, float]
    """The tuned settings."""
    seed: int
    steps: int
    settings: Mapping[str, Any]
    """All settings, as `mmpost train config=` reads them."""
    tuning: bool = False
    """Evaluated on val only, to choose values."""

    def key(self, base: str, code: str) -> str:
        """Hash of everything that determines the result: full configuration, initial weights `base`, and `code`."""
        run, _ = run_config.load([dict(self.settings)])
        parts = [run.model_dump(mode="json"), base, code]
        if run.data.manifest is not None:  # a manifest may be rewritten under the same name
            parts.append(hashlib.sha256(read_manifest(run.data.manifest).file.read_bytes()).hexdigest())
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        values = " ".join(f"{name}={value:g}" for name, value in self.values.items())
        return f"{self.arm} seed={self.seed} steps={self.steps} {values}".rstrip()


class Study(ArmsStudy):
    """A file of configs/studies/: what `mmpost compare` trains."""

    task: str
    """The task of all arms."""
    starts: dict[str, dict[str, Any]] = {}
    """Settings of runs that arms start from, by name: trained once per seed, and not compared themselves."""
    metrics: tuple[str, ...] = ()
    """Metrics of the tables and the plot, as "bench/metric"; the first two are the plot's axes. Empty: all."""

    @classmethod
    def load(cls, name: str) -> Study:
        """The study of this name in configs/studies/, or in a YAML file of the user."""
        return run_config.decode(cls, read_yaml(name, "studies", "task and arms"), f"{name}: ")

    def common_settings(self) -> dict[str, Any]:
        """Settings that all runs of the study share."""
        settings = run_config.merge(CELL_SETTINGS, {"task": self.task, **({"model": self.model} if self.model else {})})
        return run_config.merge(settings, self.set)

    def arm_settings(self, arm: str, values: Mapping[str, float]) -> dict[str, Any]:
        """Settings of `arm` with tuned `values`, without seed and steps."""
        changes = {key: value for key, value in self.arms[arm].items() if key not in ARM_OPTIONS}
        settings = run_config.merge(self.common_settings(), changes)
        for name, value in values.items():
            settings = run_config.merge(settings, parsing.nest(name, value))
        return settings

    def grid(self, arm: str) -> list[dict[str, float]]:
        """Every combination of the values to try for `arm`."""
        grid: Mapping[str, Sequence[float]] = self.arms[arm].get("tune", self.tune)
        return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]

    def cell(self, arm: str, values: Mapping[str, float], seed: int, steps: int, tuning: bool = False) -> Cell:
        """The run of `arm` with tuned `values`; a tuning run is evaluated on val only."""
        changes: dict[str, Any] = {"seed": seed + TUNING_SEED * tuning, "steps": steps}
        if tuning:
            changes["eval"] = {"after": False, "every": steps}
        settings = run_config.merge(self.arm_settings(arm, values), changes)
        return Cell(arm, dict(values), changes["seed"], steps, settings, tuning)

    def check(self) -> list[RunConfig]:
        """The configurations of all points of all arms' grids, in order.

        Loads and checks them and those of the starts, so that mistakes in any arm show before the first run is trained.
        """
        configs = [
            run_config.load([self.arm_settings(arm, values)])[0] for arm in self.arms for values in self.grid(arm)
        ]
        starts = [self.with_start(self.cell(arm, self.grid(arm)[0], 0, 0))[0] for arm in self.arms]
        start_configs = [run_config.load([dict(start.settings)])[0] for start in starts if start is not None]
        for config in (*configs, *start_configs):
            ConfiguredTask.load(config).stages()
        return configs

    def with_start(self, cell: Cell) -> tuple[Cell | None, Cell]:
        """The run that the cell's arm starts from (option `after`, same seed) or None, and the cell itself.

        Raises ConfigError for a name that is not among the study's starts.
        """
        name = self.arms[cell.arm].get("after")
        if name is None:
            return None, cell
        if name not in self.starts:
            known = ", ".join(self.starts) or "(none)"
            raise ConfigError(f"arm {cell.arm}: after={name!r}: the study has the starts {known}")
        settings = run_config.merge(self.common_settings(), self.starts[name])
        settings = run_config.merge(settings, {"seed": cell.seed, "eval": {"after": False}})
        return Cell(name, {}, cell.seed, run_config.load([settings])[0].steps, settings), cell


def read_yaml(name: str, folder: str, contents: str) -> dict[str, Any]:
    """configs/<folder>/<name>.yaml, or the YAML file `name`. Raises ConfigError if there is neither; `contents`
    describes such a file in the error."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(f"study={name}: no such file")
        raw = parsing.parse_yaml(path.read_text(encoding="utf-8"), name)
    else:
        raw = run_config.shipped(f"{folder}/{name}")
    if not raw:
        raise ConfigError(f"no study {name!r}: wanted configs/{folder}/{name}.yaml, or study=FILE.yaml with {contents}")
    return raw
