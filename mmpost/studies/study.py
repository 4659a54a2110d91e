"""A study: named arms of one task, the values that are tuned for each, and the cells that this comes to."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from mmpost.config import parsing, run_config
from mmpost.config.settings import Settings
from mmpost.errors import ConfigError
from mmpost.selection.manifest import read as read_manifest

WORDS = ("task", "study", "arms", "seeds", "budgets", "tune_seeds", "out", "jobs", "launch", "keep")
"""Words of the command itself; all others are settings of every arm."""

ARM_WORDS = ("tune", "after", "against")
"""Words of an arm that are no settings of its runs."""

TUNING_SEED = 1000
"""Seeds of tuning runs start here, so that no tuned run is evaluated on the seed that chose its values."""

QUIET: dict[str, Any] = {
    "eval": {"before": False},
    "log": {"progress": False, "tensorboard": False, "samples_every": 0, "probe_every": 0},
    "checkpoint": {"every": 0, "keep": 1},
    "max_zero_gradient_steps": 0,
}
"""A cell is compared by its evaluation alone, and a policy that has nothing to learn is a result too."""


class Study(Settings):
    """A file of configs/studies/: what `mmpost compare` trains."""

    task: str
    """The task of all arms."""
    model: str | None = None
    """The model that all arms start from; by default the task's."""
    set: dict[str, Any] = {}
    """Settings of all arms."""
    arms: dict[str, dict[str, Any]] = Field(min_length=1)
    """Settings of each arm by its name. `tune` among them replaces the study's grid for this arm, `after` names the one
    of `starts` whose weights it begins with, `against` the arm that it is compared with in place of the study's."""
    starts: dict[str, dict[str, Any]] = {}
    """Settings of runs that arms begin with, by name: trained once for each seed, and not compared themselves."""
    tune: dict[str, tuple[float, ...]] = {}
    """Values to try for a setting; each arm takes what is best on val, by the task's own metric."""
    tune_seeds: int = Field(default=1, ge=1)
    """Runs behind each point of the grid."""
    against: str = ""
    """The arm that the others are compared with, sample by sample; empty: the last."""
    metrics: tuple[str, ...] = ()
    """Metrics of the tables and the picture, as "bench/metric"; the first two are the picture's axes. Empty: all."""

    @model_validator(mode="after")
    def _opponents(self) -> Study:
        for name, arm in self.arms.items():
            if arm.get("against", name) not in self.arms:
                raise ValueError(
                    f"arm {name}: against={arm['against']!r}: the study has the arms {', '.join(self.arms)}"
                )
        if self.against and self.against not in self.arms:
            raise ValueError(f"against={self.against!r}: the study has the arms {', '.join(self.arms)}")
        return self


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    arm: str
    values: Mapping[str, float]
    """The tuned settings."""
    seed: int
    steps: int
    settings: Mapping[str, Any]
    """All settings, as `mmpost train config=` takes them."""
    tuning: bool = False
    """Evaluated on val alone, to choose values."""

    def key(self, base: str, code: str) -> str:
        """Decides the result: the configuration in full, the weights it starts from, the code that computes it."""
        run, _ = run_config.load([dict(self.settings)])
        what = [run.model_dump(mode="json"), base, code, *_files(run.data.manifest)]
        text = json.dumps(what, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        values = " ".join(f"{name}={value:g}" for name, value in self.values.items())
        return f"{self.arm} seed={self.seed} steps={self.steps} {values}".rstrip()


def _files(manifest: str | None) -> list[str]:
    """What the manifest of a run says, if it has one: under the same name it may have been made again."""
    return [] if manifest is None else [hashlib.sha256(read_manifest(manifest).file.read_bytes()).hexdigest()]


def read(name: str) -> Study:
    """The study of that name in configs/studies/, or in a YAML file of your own."""
    return run_config.decode(Study, document(name, "studies", "task and arms"), f"{name}: ")


def document(name: str, folder: str, holds: str) -> dict[str, Any]:
    """What stands in configs/<folder>/<name>.yaml, or in a YAML file of your own."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(f"study={name}: no such file")
        raw = parsing.parse_yaml(path.read_text(encoding="utf-8"), name)
    else:
        raw = run_config.shipped(f"{folder}/{name}")
    if not raw:
        raise ConfigError(
            f"no study {name!r}: wanted configs/{folder}/{name}.yaml, or study=FILE.yaml of your own with {holds}"
        )
    return raw


def _common(study: Study) -> dict[str, Any]:
    """What all runs of a study have in common."""
    settings = run_config.merge(QUIET, {"task": study.task, **({"model": study.model} if study.model else {})})
    return run_config.merge(settings, study.set)


def settings_of(study: Study, arm: str, values: Mapping[str, float]) -> dict[str, Any]:
    """What `arm` with tuned `values` asks of `mmpost train`, but for seed and steps."""
    settings = run_config.merge(_common(study), {k: v for k, v in study.arms[arm].items() if k not in ARM_WORDS})
    for name, value in values.items():
        settings = run_config.merge(settings, parsing.nest(name, value))
    return settings


def cell(study: Study, arm: str, values: Mapping[str, float], seed: int, steps: int, tuning: bool = False) -> Cell:
    """The run of `arm` with tuned `values`; one for tuning is evaluated on val alone."""
    own: dict[str, Any] = {"seed": seed + TUNING_SEED * tuning, "steps": steps}
    if tuning:
        own["eval"] = {"after": False, "every": steps}
    return Cell(arm, dict(values), own["seed"], steps, run_config.merge(settings_of(study, arm, values), own), tuning)


def begun(study: Study, cell: Cell) -> tuple[Cell | None, Cell]:
    """`cell` behind the run of the same seed that its arm begins with, if it names one.

    Raises ConfigError for a name that is not among the study's starts.
    """
    name = study.arms[cell.arm].get("after")
    if name is None:
        return None, cell
    if name not in study.starts:
        known = ", ".join(study.starts) or "(none)"
        raise ConfigError(f"arm {cell.arm}: after={name!r}: the study has the starts {known}")
    own = {"seed": cell.seed, "eval": {"after": False}}
    settings = run_config.merge(run_config.merge(_common(study), study.starts[name]), own)
    return Cell(name, {}, cell.seed, run_config.load([settings])[0].steps, settings), cell


def grid(study: Study, arm: str) -> list[dict[str, float]]:
    """Every combination of the values that are tried for `arm`."""
    tried: Mapping[str, Sequence[float]] = study.arms[arm].get("tune", study.tune)
    return [dict(zip(tried, values, strict=True)) for values in itertools.product(*tried.values())]


def opponent(study: Study, arm: str) -> str:
    """The arm that `arm` is compared with: the one that it names, else the study's."""
    return study.arms[arm].get("against") or study.against or list(study.arms)[-1]


def chosen(study: Study, words: str | None) -> Study:
    """`study` with only the arms that `arms=` names, in that order; what is compared with another arm is then compared
    with the study's."""
    found = picked(study.arms, study.against, words)
    for name, arm in found.get("arms", {}).items():
        if arm.get("against") not in found["arms"]:
            found["arms"][name] = {k: v for k, v in arm.items() if k != "against"}
    return study.model_copy(update=found)


def picked(arms: Mapping[str, Any], against: str, words: str | None) -> dict[str, Any]:
    """`arms` and `against` of a study as `arms=` wants them: only those that it names, in that order."""
    if words is None:
        return {}
    names = [name for name in words.split(",") if name]
    unknown = [name for name in names if name not in arms]
    if unknown or not names:
        raise ConfigError(f"arms={words}: the study has the arms {', '.join(arms)}")
    return {"arms": {name: arms[name] for name in names}, "against": against if against in names else ""}
