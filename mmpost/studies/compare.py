"""`mmpost compare`: the arms of a study at each level of its dial, compared at equal budgets, and verdicts about its
claims."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpost.config import run_config
from mmpost.core.run_files import locked
from mmpost.errors import ConfigError
from mmpost.metrics.intervals import Measured, rank_correlation, stack
from mmpost.runs.configured_task import ConfiguredTask
from mmpost.studies.arguments import StudyArguments
from mmpost.studies.cells import Runner
from mmpost.studies.claims import findings, planned_power
from mmpost.studies.equal_learning import matched_gaps, runs_at_every_rate
from mmpost.studies.history import History
from mmpost.studies.plots import plot_compare
from mmpost.studies.results import SPENT, Result
from mmpost.studies.study import Study, Variant, points
from mmpost.studies.tables import compare_markdown, write_results
from mmpost.studies.tuning import tune

BUDGETS = ("steps", "time", "labels", "tokens")
"""What arms may have equal amounts of."""


def main(arguments: Sequence[str]) -> int:
    """`mmpost compare`."""
    compare(arguments)
    return 0


def compare(arguments: Sequence[str]) -> dict[str, Any]:
    """Train the cells of a study; write study.json, study.md and study.png, and return the content of the JSON.

    With pilot=true, from which a study is designed, they are pilot.json, pilot.md and pilot.png.
    """
    parsed = StudyArguments.parse(arguments, "task", "budgets", "levels")
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
    study = study.select_arms(parsed.names("arms")).select_levels(parsed.names("levels")).model_copy(update=changes)
    folder = parsed.folder("compare", name)
    with locked(folder):
        result = Comparison(study, folder, parsed).run()
        stem = "pilot" if parsed.pilot else "study"
        write_results(folder, result, compare_markdown(result), plot_compare, stem)
    return result


class Comparison:
    """A study being run in its folder."""

    def __init__(self, study: Study, folder: Path, arguments: StudyArguments) -> None:
        self.study, self.pilot = study, arguments.pilot
        self.seeds = arguments.seeds(study.seeds)
        self.budgets = arguments.names("budgets") or ["steps", "time"]
        if self.budgets[0] != "steps" or not set(self.budgets) <= set(BUDGETS):
            raise ConfigError(
                f"budgets={arguments.get('budgets')}: wanted steps, then any of {', '.join(BUDGETS[1:])}, for which "
                "the steps measure what each arm takes"
            )
        configs = study.check()
        steps = {str(config.steps) for config in configs}
        if len(steps) > 1:
            raise ConfigError(f"the arms differ in steps ({'; '.join(sorted(steps))}): wanted the same for all")
        self.run_config = configs[0]
        self.task = ConfiguredTask.load(self.run_config)
        benches = {bench.name: bench.summary for split in ("val", "test") for bench in self.task.benches(split)}
        if not self.task.benches("test") or not self.task.best_metric:
            raise ConfigError(
                f"task={study.task}: wanted a bench on test and a `best_metric` to tune by; set data.test, or use "
                "another task"
            )
        claimed = [m for c in study.predict.values() for m in (c.metric, c.control_metric, c.matched) if m]
        metrics = {*study.metrics, *claimed, *(study.relation or ())} if study.metrics else set()
        self.runner = Runner.from_arguments(arguments, folder, [study.task], benches, metrics)
        self.history = History(folder)

    def run(self) -> dict[str, Any]:
        """The content of study.json."""
        study = self.study
        version = self.history.begin(study, self.seeds, self.pilot)
        result: dict[str, Any] = {
            "task": study.task,
            "model": self.run_config.model.name,
            "mechanism": study.mechanism,
            "against": study.against or list(study.arms)[-1],
            "metrics": list(study.metrics),
            "seeds": self.seeds,
            "samples": self._samples(),
            "study": study.model_dump(mode="json"),
            "study_hash": version.study_hash,
            "code_hash": self.runner.code,
            "planned_power": self._planned_power(),
            "base": self._base(),
            "budgets": {},
        }
        steps = dict.fromkeys(study.variants, self.run_config.steps)
        for budget in self.budgets:
            entries, scores, runs = self._run_budget(steps)
            result["budgets"][budget] = entries
            if budget == "steps":
                rates = runs_at_every_rate(self.runner, study, {v: runs[v][0].cell for v in study.matched}, self.seeds)
                found = findings(study, scores, matched_gaps(study, rates, self.seeds))
                result["relation"] = self._relation([*itertools.chain(*runs.values()), *rates])
            following = self.budgets[self.budgets.index(budget) + 1 :]
            if following:
                steps = self._equal(following[0], result["budgets"]["steps"])
        conflict = self.history.conflict(version)
        self.history.end(version, found)
        result["claims"], result["no_verdict"] = found, conflict
        result["history"] = [v.model_dump(mode="json") for v in self.history.versions if v is not version]
        result["other_bases"] = self.runner.other_bases()
        return result

    def _samples(self) -> dict[str, int]:
        """The number of test samples of each bench."""
        limit = self.run_config.eval.max_samples
        sizes = {bench.name: len(bench.source) for bench in self.task.benches("test")}
        return {name: min(limit, size) if limit else size for name, size in sizes.items()}

    def _planned_power(self) -> dict[str, float]:
        pilot = self.history.last_pilot()
        if pilot is None or self.pilot:
            return {}
        planned = planned_power(pilot.outcome, len(self.seeds))
        for name, value in planned.items():
            print(f"{name}: power {value:.0%} with {len(self.seeds)} seeds, from the spread of the pilot")
        return planned

    def _base(self) -> dict[str, Any]:
        """The scores of the models that the arms start from, at each level of the dial."""
        study = self.study
        arm = next(iter(study.arms))
        values = points(study.grid(arm))[0]
        levels = list(study.dial) or [""]
        cells = [study.cell(arm, values, seed, 0, level=level) for level in levels for seed in self.seeds]
        done = iter(self.runner.run(cells))
        return {level: self._scores(stack([next(done).measured.test for _ in self.seeds])) for level in levels}

    def _run_budget(
        self, steps: Mapping[Variant, int]
    ) -> tuple[dict[str, Any], dict[Variant, dict[str, Measured]], dict[Variant, list[Result]]]:
        """Tune all variants and train them with all seeds. Returns the entries of study.json, and the measured metrics
        and the runs of each variant."""
        study, variants = self.study, list(steps)
        tuned = tune(
            self.runner,
            dict.fromkeys(variants, study),
            steps,
            dict.fromkeys(variants, self.task.best_metric),
            self.pilot,
        )
        cells = [
            study.cell(v.arm, tuned[v]["chosen"], seed, steps[v], level=v.level)
            for seed in self.seeds
            for v in variants
        ]
        done = self.runner.run_from_starts([study.with_start(cell) for cell in cells])
        runs = {v: [result.successful() for result in done if result.cell.variant == v] for v in variants}
        scores = {v: stack([result.measured.test for result in results]) for v, results in runs.items()}
        entries = {}
        for v, results in runs.items():
            opponent = Variant(study.opponent(v.arm), v.level)
            seconds = [result.measured.seconds for result in results]
            entries[v.name] = {
                "arm": v.arm,
                "level": v.level,
                "steps": steps[v],
                **tuned[v],
                "seconds": seconds,
                "seconds_per_step": statistics.median(seconds) / max(1, steps[v]),
                "spent": {name: statistics.mean(r.measured.spent.get(name, 0.0) for r in results) for name in SPENT},
                "scores": self._scores(scores[v]),
                "against": opponent.name,
                "difference": self._differences(scores[v], scores.get(opponent, {})) if v != opponent else {},
            }
        return entries, scores, runs

    @staticmethod
    def _scores(measured: Mapping[str, Measured]) -> dict[str, Any]:
        return {name: values.estimate().as_dict() for name, values in measured.items()}

    @staticmethod
    def _differences(measured: Mapping[str, Measured], other: Mapping[str, Measured]) -> dict[str, Any]:
        return {name: (measured[name] - other[name]).estimate().as_dict() for name in measured if name in other}

    def _equal(self, budget: str, entries: Mapping[str, Any]) -> dict[Variant, int]:
        """The steps of each variant that take as much of a budget as the most expensive one at its level."""
        levels = self.study.budget_levels or list(self.study.dial) or [""]
        pace = {v: _per_step(entries[v.name], budget) for v in self.study.variants if v.level in levels}
        return {
            v: steps
            for level in levels
            for v, steps in equal_amount(
                self.run_config.steps, {v: value for v, value in pace.items() if v.level == level}
            ).items()
        }

    def _relation(self, runs: Sequence[Result]) -> dict[str, Any]:
        """How well one metric orders another over all runs of a seed, and the runs themselves; empty if not asked."""
        if self.study.relation is None:
            return {}
        x, y = self.study.relation
        every = {result.folder: result for result in runs}.values()
        of_seed = [[r for r in every if r.cell.seed == seed] for seed in self.seeds]
        rho = [rank_correlation([r.measured.test[x] for r in rs], [r.measured.test[y] for r in rs]) for rs in of_seed]
        points = [
            {"arm": r.cell.variant.name, "seed": r.cell.seed, x: r.measured.test[x][0], y: r.measured.test[y][0]}
            for rs in of_seed
            for r in rs
        ]
        return {
            "x": x,
            "y": y,
            "correlation": stack([{"rho": r} for r in rho])["rho"].estimate().as_dict(),
            "runs": points,
        }


def _per_step(entry: Mapping[str, Any], budget: str) -> float:
    """What a step of a variant takes of a budget."""
    if budget == "time":
        return float(entry["seconds_per_step"])
    spent = entry["spent"]
    return (spent["labels"] if budget == "labels" else spent["generated"] + spent["trained"]) / entry["steps"]


def equal_amount(steps: int, pace: Mapping[Variant, float]) -> dict[Variant, int]:
    """The steps of each variant that take as much as `steps` steps of the most expensive; `pace` is the amount per
    step."""
    amount = steps * max(pace.values())
    return {variant: max(1, round(amount / per_step)) for variant, per_step in pace.items()}
