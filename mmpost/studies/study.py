"""The description of a study: a claim with a dial, named arms of one task, the grid to tune each on, and the runs
(cells)."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from mmpost.config import parsing, run_config
from mmpost.config.run_config import RunConfig
from mmpost.config.settings import Settings
from mmpost.errors import ConfigError
from mmpost.runs.configured_task import ConfiguredTask
from mmpost.selection.manifest import read as read_manifest

S = TypeVar("S", bound="ArmsStudy")

ARM_OPTIONS = ("tune", "after", "against", "levels")
"""Keys of an arm that are options of the study rather than settings of its runs."""

TUNING_SEED = 1000
"""Added to the seeds of tuning runs, so that no arm is evaluated on a seed its values were selected with."""

PILOT_SEED = 100
"""The first seed of pilots, from which a study is designed; the runs that confirm it have other seeds and bases."""

CELL_SETTINGS: dict[str, Any] = {
    "eval": {"before": False},
    "log": {"progress": False, "tensorboard": False, "samples_every": 0, "probe_every": 0},
    "checkpoint": {"every": 0, "keep": 1},
    "max_zero_gradient_steps": 0,
}
"""Only final evaluations are compared; and a policy without gradient is a result, not an error."""


@dataclass(frozen=True)
class Variant:
    """An arm at a level of the dial."""

    arm: str
    level: str = ""
    """Empty in a study without a dial."""

    @property
    def name(self) -> str:
        return f"{self.arm} @ {self.level}" if self.level else self.arm


class Claim(Settings):
    """A prediction, written before the runs that confirm it: a gap between two arms, and where it should vanish."""

    arm: str
    against: str
    """The gap is that of `arm` minus `against`."""
    metric: str
    """As "bench/metric"."""
    gap: float
    """The predicted gap, with its sign, in units of the metric."""
    at: str = ""
    """The level of the dial that has the cause."""
    control: str = ""
    """The level without the cause; what counts is the gap at `at` minus that at `control`."""
    control_metric: str = ""
    """The metric of the control; empty: `metric`. Of the same level if there is no `control`."""
    vanishes: bool = True
    """Whether the control's gap is predicted to vanish: to lie within `margin` of 0."""
    matched: str = ""
    """Compare at equal values of this metric, over rates and early checkpoints, instead of at the end of training."""
    refuted_by: str = ""
    """What outcome would speak against the mechanism, in words."""

    @field_validator("gap")
    @classmethod
    def _not_zero(cls, value: float) -> float:
        if not value:
            raise ValueError("wanted the predicted gap, found 0; a gap that should vanish is a control")
        return value

    @property
    def margin(self) -> float:
        """Half of the predicted gap: less than that is not what was predicted."""
        return abs(self.gap) / 2

    @property
    def has_control(self) -> bool:
        return bool(self.control or self.control_metric)

    @property
    def variants(self) -> list[Variant]:
        """Those whose runs it needs."""
        levels = dict.fromkeys([self.at, self.control or self.at])
        return [Variant(arm, level) for level in levels for arm in (self.arm, self.against)]


class ArmsStudy(Settings):
    """The common part of study files for `mmpost compare` and `mmpost continual`."""

    model: str | None = None
    """The model all runs start from; by default the task's."""
    set: dict[str, Any] = {}
    """Settings of all runs."""
    arms: dict[str, dict[str, Any]] = Field(min_length=1)
    """Settings of each arm by name. The option `tune` replaces the study's grid for this arm. In `mmpost compare`,
    `after` names the entry of `starts` whose weights the arm starts from, `against` replaces the study's own, and
    `levels` are those of the dial at which the arm is run, by default all."""
    tune: dict[str, tuple[float, ...]] = {}
    """Values to try for each setting; every arm takes the point with the best metric on val (`Task.best_metric`)."""
    tune_seeds: int = Field(default=1, ge=1)
    """Runs for each point of the grid."""
    widen: int = Field(default=4, ge=0)
    """How often a grid is extended where the best value lies at its edge; 0: never."""
    seeds: int = Field(default=3, ge=1)
    """Runs of each arm."""
    bases: Literal["per_seed", "shared"] = "per_seed"
    """Of a built-in base: seed k starts from base k, so that intervals hold the luck of the base; or all from one."""
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
    level: str = ""
    """Of the study's dial."""

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
        return f"{self.variant.name} seed={self.seed} steps={self.steps} {values}".rstrip()

    @property
    def variant(self) -> Variant:
        return Variant(self.arm, self.level)


class Study(ArmsStudy):
    """A file of configs/studies/: what `mmpost compare` trains."""

    task: str
    """The task of all arms."""
    mechanism: str = ""
    """Why the arms should differ, in words."""
    dial: dict[str, dict[str, Any]] = {}
    """Levels of the cause, by name and in order: settings of all arms."""
    budget_levels: tuple[str, ...] = ()
    """Levels of the dial at which budgets other than steps are compared; empty: all."""
    predict: dict[str, Claim] = {}
    """Claims by name."""
    checkpoints: int = Field(default=6, ge=1)
    """Evaluations during each run, after one of the base, for claims at equal learning (`matched`)."""
    starts: dict[str, dict[str, Any]] = {}
    """Settings of runs that arms start from, by name: trained once per seed, and not compared themselves."""
    relation: tuple[str, str] | None = None
    """Two metrics: how well the first orders the second over all runs of a seed (rank correlation)."""
    metrics: tuple[str, ...] = ()
    """Metrics of the tables and the plot, as "bench/metric"; the first two are the plot's axes. Empty: all."""

    @model_validator(mode="after")
    def _known_names(self) -> Study:
        levels = self.dial or {"": {}}
        for name, arm in self.arms.items():
            if not set(arm.get("levels", levels)) <= levels.keys():
                raise ValueError(f"arm {name}: levels={arm['levels']}: the study has {', '.join(levels) or 'no dial'}")
        if not set(self.budget_levels) <= levels.keys():
            raise ValueError(f"budget_levels={self.budget_levels}: the study has {', '.join(levels) or 'no dial'}")
        for name, claim in self.predict.items():
            for field, known in (("arm", self.arms), ("against", self.arms), ("at", levels), ("control", levels)):
                value = getattr(claim, field)
                if value not in known and not (field == "control" and not value):
                    raise ValueError(f"predict.{name}.{field}={value!r}: the study has {', '.join(known) or 'no dial'}")
            missing = [v.name for v in claim.variants if v not in self.variants]
            if missing:
                raise ValueError(f"predict.{name}: wanted runs of {', '.join(missing)}, found none in the arms' levels")
        return self

    @classmethod
    def load(cls, name: str) -> Study:
        """The study of this name in configs/studies/, or in a YAML file of the user."""
        return run_config.decode(cls, read_yaml(name, "studies", "task and arms"), f"{name}: ")

    def select_arms(self, names: Sequence[str] | None) -> Study:
        """`ArmsStudy.select_arms`, with the claims about these arms."""
        study = super().select_arms(names)
        kept = {name: c for name, c in study.predict.items() if {c.arm, c.against} <= study.arms.keys()}
        return study.model_copy(update={"predict": kept})

    def select_levels(self, names: Sequence[str] | None) -> Study:
        """The study with only these levels of the dial (None: all), and the claims about them.

        Raises ConfigError for an unknown name, or none at all.
        """
        if names is None:
            return self
        if not names or not self.dial.keys() >= set(names):
            raise ConfigError(f"levels={','.join(names)}: the study has {', '.join(self.dial) or 'no dial'}")
        kept = {n: c for n, c in self.predict.items() if {c.at, c.control or c.at} <= set(names)}
        arms = {
            arm: settings
            | ({"levels": [at for at in settings["levels"] if at in names]} if "levels" in settings else {})
            for arm, settings in self.arms.items()
        }
        levels = tuple(level for level in self.budget_levels if level in names)
        dial = {name: self.dial[name] for name in names}
        return self.model_copy(update={"dial": dial, "budget_levels": levels, "predict": kept, "arms": arms})

    @property
    def variants(self) -> list[Variant]:
        """Every arm at each of its levels of the dial."""
        levels = list(self.dial) or [""]
        return [Variant(arm, at) for at in levels for arm in self.arms if at in self.arms[arm].get("levels", levels)]

    @property
    def matched(self) -> set[Variant]:
        """The variants that some claim compares at equal learning."""
        return {variant for claim in self.predict.values() if claim.matched for variant in claim.variants}

    def common_settings(self, level: str = "") -> dict[str, Any]:
        """Settings that all runs of the study share, at a level of the dial."""
        settings = run_config.merge(CELL_SETTINGS, {"task": self.task, **({"model": self.model} if self.model else {})})
        return run_config.merge(run_config.merge(settings, self.set), self.dial[level] if level else {})

    def arm_settings(self, arm: str, values: Mapping[str, float], level: str = "") -> dict[str, Any]:
        """Settings of `arm` with tuned `values` at a level of the dial, without seed and steps."""
        changes = {key: value for key, value in self.arms[arm].items() if key not in ARM_OPTIONS}
        settings = run_config.merge(self.common_settings(level), changes)
        for name, value in values.items():
            settings = run_config.merge(settings, parsing.nest(name, value))
        return settings

    def grid(self, arm: str) -> dict[str, tuple[float, ...]]:
        """The values to try for each tuned setting of `arm`."""
        return {name: tuple(values) for name, values in self.arms[arm].get("tune", self.tune).items()}

    def cell(
        self, arm: str, values: Mapping[str, float], seed: int, steps: int, tuning: bool = False, level: str = ""
    ) -> Cell:
        """The run of `arm` with tuned `values`; a tuning run is evaluated on val only."""
        changes: dict[str, Any] = {"seed": seed + TUNING_SEED * tuning, "steps": steps}
        if tuning:
            changes["eval"] = {"after": False, "every": steps}
        elif steps and Variant(arm, level) in self.matched:
            # A path begins at the base, so that arms overlap where they have learned little.
            changes["eval"] = {"every": max(1, steps // self.checkpoints), "on_start": True}
        settings = run_config.merge(self.arm_settings(arm, values, level), changes)
        # All tuning runs start from one base, which no compared run starts from.
        base_seed = TUNING_SEED + PILOT_SEED * (seed >= PILOT_SEED) if tuning else seed
        return Cell(arm, dict(values), changes["seed"], steps, self._with_base(settings, base_seed), tuning, level)

    def _with_base(self, settings: dict[str, Any], seed: int) -> dict[str, Any]:
        """The settings, starting from the base of `seed` where the model is a built-in base."""
        name = run_config.load([settings])[0].model.name
        is_base = self.bases == "per_seed" and bool(run_config.shipped(f"bases/{name}"))
        return run_config.merge(settings, {"model": {"base_seed": seed}}) if is_base else settings

    def check(self) -> list[RunConfig]:
        """The configurations of all points of all arms' grids at all levels, in order.

        Loads and checks them and those of the starts, so that mistakes in any arm show before the first run is trained.
        """
        configs = [
            run_config.load([self.arm_settings(v.arm, values, v.level)])[0]
            for v in self.variants
            for values in points(self.grid(v.arm))
        ]
        starts = [
            self.with_start(self.cell(v.arm, points(self.grid(v.arm))[0], 0, 0, level=v.level))[0]
            for v in self.variants
        ]
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
        settings = run_config.merge(self.common_settings(cell.level), self.starts[name])
        settings = run_config.merge(settings, {"seed": cell.seed, "eval": {"after": False}})
        base_seed = cell.settings.get("model", {}).get("base_seed")
        if base_seed is not None:
            settings = run_config.merge(settings, {"model": {"base_seed": base_seed}})
        return Cell(name, {}, cell.seed, run_config.load([settings])[0].steps, settings, level=cell.level), cell


def points(grid: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """Every combination of the values of a grid."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def widened(grid: Mapping[str, Sequence[float]], best: Mapping[str, float]) -> dict[str, tuple[float, ...]]:
    """The grid with one more value, in the ratio of the last two, beyond each edge at which the best point lies."""
    out = {}
    for name, values in grid.items():
        values = sorted(values)
        if len(values) > 1 and best[name] == values[0] and values[0] > 0:
            values = [values[0] ** 2 / values[1], *values]
        elif len(values) > 1 and best[name] == values[-1] and values[-2] > 0:
            values = [*values, values[-1] ** 2 / values[-2]]
        out[name] = tuple(float(f"{value:.3g}") for value in values)
    return out


def read_yaml(name: str, folder: str, contents: str) -> dict[str, Any]:
    """configs/<folder>/<name>.yaml, or the YAML file `name`. Raises ConfigError if there is neither; `contents`
    describes such a file in the error."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(f"study={name}: no such file")
        raw = parsing.read_yaml(path)
    else:
        raw = run_config.shipped(f"{folder}/{name}")
    if not raw:
        raise ConfigError(f"no study {name!r}: wanted configs/{folder}/{name}.yaml, or study=FILE.yaml with {contents}")
    return raw
