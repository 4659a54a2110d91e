"""`mmpost compare`: the arms of a study, each tuned on its own grid, compared at equal steps and at equal wall time."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpost.config import run_config
from mmpost.core.run_files import locked
from mmpost.errors import ConfigError
from mmpost.metrics.bootstrap import Resampled, bootstrap, paired_difference, summarize_seeds
from mmpost.runs.configured_task import ConfiguredTask
from mmpost.studies.arguments import StudyArguments
from mmpost.studies.cells import Result, Runner, tune
from mmpost.studies.plots import plot_compare
from mmpost.studies.study import Study
from mmpost.studies.tables import compare_markdown, write_results


def main(arguments: Sequence[str]) -> int:
    """`mmpost compare`."""
    compare(arguments)
    return 0


def compare(arguments: Sequence[str]) -> dict[str, Any]:
    """Train the cells of a study; write study.json, study.md and study.png, and return the content of the JSON."""
    parsed = StudyArguments.parse(arguments, "task", "budgets")
    name = parsed.get("study") or parsed.get("task")
    if not name:
        raise ConfigError("wanted task=NAME (with a study in configs/studies/) or study=FILE.yaml, found neither")
    study = Study.load(name)
    if parsed.options.get("task", study.task) != study.task:
        raise ConfigError(f"study={name}: wanted task={study.task} or none, found task={parsed.get('task')}")
    changes = {
        "set": run_config.merge(study.set, parsed.settings),
        "tune_seeds": parsed.count("tune_seeds", study.tune_seeds),
    }
    study = study.select_arms(parsed.names("arms")).model_copy(update=changes)
    folder = parsed.folder("compare", name)
    with locked(folder):
        result = Comparison(study, folder, parsed).run()
        write_results(folder, result, compare_markdown(result), plot_compare)
    return result


class Comparison:
    """A study being run in its folder."""

    def __init__(self, study: Study, folder: Path, arguments: StudyArguments) -> None:
        self.study = study
        self.seeds = arguments.seeds
        self.budgets = arguments.names("budgets") or ["steps", "time"]
        if self.budgets not in (["steps"], ["steps", "time"]):
            raise ConfigError(
                f"budgets={arguments.get('budgets')}: wanted steps, or steps,time (time uses the speed measured by "
                "steps)"
            )
        configs = study.check()
        for name in ("steps", "model"):
            values = {str(getattr(config, name)) for config in configs}
            if len(values) > 1:
                raise ConfigError(f"the arms differ in {name} ({'; '.join(sorted(values))}): wanted the same for all")
        self.run_config = configs[0]
        self.task = ConfiguredTask.load(self.run_config)
        self.benches = {bench.name: bench for bench in self.task.benches("test")}
        if not self.benches or not self.task.best_metric:
            raise ConfigError(
                f"task={study.task}: wanted a bench on test and a `best_metric` to tune by; set data.test, or use "
                "another task"
            )
        self.runner = Runner.from_arguments(arguments, folder, self.run_config.model.name, [study.task])

    def run(self) -> dict[str, Any]:
        """The content of study.json."""
        study = self.study
        arm = next(iter(study.arms))
        base = self.runner.run([study.cell(arm, study.grid(arm)[0], 0, 0)])[0]
        result: dict[str, Any] = {
            "task": study.task,
            "model": self.run_config.model.name,
            "against": study.against or list(study.arms)[-1],
            "metrics": list(study.metrics),
            "seeds": self.seeds,
            "samples": {name: len(samples) for name, samples in base.test_samples.items()},
            "arms": study.arms,
            "starts": study.starts,
            "set": study.set,
            "base_hash": self.runner.base,
            "code_hash": self.runner.code,
            "base": self._scores([base], self._resample([base])),
            "budgets": {},
        }
        steps = dict.fromkeys(study.arms, self.run_config.steps)
        for budget in self.budgets:
            result["budgets"][budget] = self._run_budget(steps)
            pace = {arm: entry["seconds_per_step"] for arm, entry in result["budgets"]["steps"].items()}
            steps = equal_time(self.run_config.steps, pace)
        return result

    def _run_budget(self, steps: Mapping[str, int]) -> dict[str, Any]:
        """Tune all arms, train them with all seeds, and compare."""
        study, arms = self.study, self.study.arms
        tuned = tune(self.runner, dict.fromkeys(arms, study), steps, dict.fromkeys(arms, self.task.best_metric))
        cells = [study.cell(arm, tuned[arm]["chosen"], seed, steps[arm]) for seed in self.seeds for arm in arms]
        done = self.runner.run_from_starts([study.with_start(cell) for cell in cells])
        runs = {arm: [result.successful() for result in done if result.cell.arm == arm] for arm in arms}
        resampled = {arm: self._resample(results) for arm, results in runs.items()}
        entries = {}
        for arm, results in runs.items():
            opponent = study.opponent(arm)
            entries[arm] = {
                "steps": steps[arm],
                **tuned[arm],
                "seconds": [round(result.seconds, 2) for result in results],
                "seconds_per_step": statistics.median(result.seconds / steps[arm] for result in results),
                "scores": self._scores(results, resampled[arm]),
                "against": opponent,
                "difference": paired_difference(resampled[arm], resampled[opponent]) if arm != opponent else {},
            }
        return entries

    def _resample(self, results: Sequence[Result]) -> Resampled:
        """Resampled "bench/metric" values. A model that cannot be evaluated yet (no trained head) has no samples."""
        return {
            f"{name}/{metric}": values
            for name, bench in self.benches.items()
            if all(name in result.test_samples for result in results)
            for metric, values in bootstrap(bench.summary, [result.test_samples[name] for result in results]).items()
        }

    def _scores(self, results: Sequence[Result], resampled: Resampled) -> dict[str, Any]:
        """The `summarize_seeds` of each metric."""
        scores = {}
        for metric, values in resampled.items():
            bench, _, name = metric.partition("/")
            seeds = [self.benches[bench].summary(result.test_samples[bench])[name] for result in results]
            scores[metric] = summarize_seeds(seeds, values)
        return scores


def equal_time(steps: int, pace: Mapping[str, float]) -> dict[str, int]:
    """The steps of each arm that take as long as `steps` steps of the slowest; `pace` is in seconds per step."""
    seconds = steps * max(pace.values())
    return {arm: max(1, round(seconds / seconds_per_step)) for arm, seconds_per_step in pace.items()}
