"""`mmpost compare`: arms of a study against each other, tuned alike, at equal steps and at equal time."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mmpost.config import run_config
from mmpost.config.run_config import RunConfig
from mmpost.errors import ConfigError
from mmpost.metrics.bootstrap import difference, hierarchical, scored
from mmpost.runs.configured_task import make_task
from mmpost.studies.arguments import count, split
from mmpost.studies.cells import Result, Runner
from mmpost.studies.compare_plot import draw
from mmpost.studies.compare_tables import markdown
from mmpost.studies.study import WORDS, Study, begun, cell, chosen, grid, opponent, read, settings_of
from mmpost.studies.tuning import taken, tune
from mmpost.training.stage_checks import checked_stages


def main(arguments: Sequence[str]) -> int:
    """`mmpost compare`."""
    compare(arguments)
    return 0


def compare(words: Sequence[str]) -> dict[str, Any]:
    """Train the cells of a study and write study.json, study.md and study.png; returns what the JSON holds."""
    own, over = split(words, WORDS)
    name = own.get("study") or own.get("task")
    if name is None:
        raise ConfigError("wanted task=NAME (its study in configs/studies/) or study=FILE.yaml")
    study = read(name)
    if own.get("task", study.task) != study.task:
        raise ConfigError(f"study={name} is about task={study.task}, not {own['task']}")
    study = chosen(study, own.get("arms")).model_copy(update={"set": run_config.merge(study.set, over)})
    if "tune_seeds" in own:
        study = study.model_copy(update={"tune_seeds": count(own, "tune_seeds", 1)})
    folder = Path(own.get("out") or f"runs/compare/{Path(name).stem}")
    result = Comparison(study, folder, own).run()
    write(folder, result)
    Console().print(markdown(result), markup=False, highlight=False, soft_wrap=True)
    print(f"written: {folder / 'study.json'}, study.md, study.png")
    return result


class Comparison:
    """A study at work in its folder."""

    def __init__(self, study: Study, folder: Path, own: Mapping[str, str]) -> None:
        self.study = study
        self.seeds = list(range(count(own, "seeds", 3)))
        self.budgets = [b for b in (own.get("budgets") or "steps,time").split(",") if b]
        if self.budgets not in (["steps"], ["steps", "time"]):
            raise ConfigError(f"budgets={own['budgets']}: wanted steps, or steps,time (the seconds of steps tell time)")
        self.run_config = self._checked()
        self.task = make_task(self.run_config)
        self.benches = {bench.name: bench for bench in self.task.benches("test")}
        if not self.benches or not self.task.best_metric:
            raise ConfigError(f"task={study.task} has no bench on test, or no `best` metric to tune by")
        self.runner = Runner.of(own, folder, self.run_config.model.name, [study.task])

    def _checked(self) -> RunConfig:
        """The first arm's configuration; a wrong setting of any arm must show before the first hour is spent."""
        study = self.study
        made = [
            run_config.load([settings_of(study, arm, values)])[0] for arm in study.arms for values in grid(study, arm)
        ]
        firsts = [begun(study, cell(study, arm, grid(study, arm)[0], 0, 0))[0] for arm in study.arms]
        starts = [run_config.load([dict(first.settings)])[0] for first in firsts if first is not None]
        for one in (*made, *starts):
            checked_stages(make_task(one))
        for name in ("steps", "model"):
            found = {str(getattr(one, name)) for one in made}
            if len(found) > 1:
                raise ConfigError(f"the arms differ in {name} ({'; '.join(sorted(found))}): wanted the same for all")
        return made[0]

    def run(self) -> dict[str, Any]:
        """Everything that study.json holds."""
        first = next(iter(self.study.arms))
        start = self.runner.run([cell(self.study, first, grid(self.study, first)[0], 0, 0)])[0]
        result: dict[str, Any] = {
            "task": self.study.task,
            "model": self.run_config.model.name,
            "against": self.against,
            "metrics": list(self.study.metrics),
            "seeds": self.seeds,
            "samples": {name: len(samples) for name, samples in start.scored.items()},
            "arms": self.study.arms,
            "starts": self.study.starts,
            "set": self.study.set,
            "base_hash": self.runner.base,
            "code_hash": self.runner.code,
            "base": self._table([start]),
            "budgets": {},
        }
        steps = dict.fromkeys(self.study.arms, self.run_config.steps)
        for budget in self.budgets:
            result["budgets"][budget] = self._budget(steps)
            pace = {arm: found["seconds_per_step"] for arm, found in result["budgets"]["steps"].items()}
            steps = equal_time(self.run_config.steps, pace)
        return result

    @property
    def against(self) -> str:
        return self.study.against or list(self.study.arms)[-1]

    def _budget(self, steps: Mapping[str, int]) -> dict[str, Any]:
        """Tune all arms, train them on all seeds, and compare."""
        arms = self.study.arms
        tuned = tune(self.runner, dict.fromkeys(arms, self.study), steps, dict.fromkeys(arms, self.task.best_metric))
        best = taken(tuned)
        wanted = [cell(self.study, arm, best[arm], seed, steps[arm]) for seed in self.seeds for arm in arms]
        done = [one.whole() for one in self.runner.after([begun(self.study, one) for one in wanted])]
        runs = {arm: [one for one in done if one.cell.arm == arm] for arm in arms}
        drawn = {arm: self._drawn(found) for arm, found in runs.items()}
        others = {arm: opponent(self.study, arm) for arm in arms}
        return {
            arm: {
                "steps": steps[arm],
                "chosen": best[arm],
                "tuning": tuned[arm],
                "seconds": [round(one.seconds, 2) for one in found],
                "seconds_per_step": statistics.median(one.seconds / steps[arm] for one in found),
                "scores": self._table(found, drawn[arm]),
                "against": others[arm],
                "difference": difference(drawn[arm], drawn[others[arm]]) if arm != others[arm] else {},
            }
            for arm, found in runs.items()
        }

    def _drawn(self, found: Sequence[Result]) -> dict[str, list[float]]:
        """Resamples of all metrics as "bench/metric"; what nothing has trained yet (a head) may have none."""
        return {
            f"{name}/{metric}": values
            for name, bench in self.benches.items()
            if all(name in one.scored for one in found)
            for metric, values in hierarchical(bench.summary, [one.scored[name] for one in found]).items()
        }

    def _table(self, found: Sequence[Result], drawn: Mapping[str, list[float]] | None = None) -> dict[str, Any]:
        """Each metric: the value of each seed, their mean, and its interval."""
        drawn = self._drawn(found) if drawn is None else drawn
        table = {}
        for metric, values in drawn.items():
            bench, _, name = metric.partition("/")
            seeds = [self.benches[bench].summary(one.scored[bench])[name] for one in found]
            table[metric] = scored(seeds, values)
        return table


def equal_time(steps: int, pace: Mapping[str, float]) -> dict[str, int]:
    """The steps of each arm that take as long as `steps` of the slowest; `pace` is in seconds per step."""
    seconds = steps * max(pace.values())
    return {arm: max(1, round(seconds / each)) for arm, each in pace.items()}


def write(folder: Path, result: Mapping[str, Any]) -> None:
    """study.json, study.md and study.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (folder / "study.md").write_text(markdown(result), encoding="utf-8")
    draw(result, folder / "study.png")
