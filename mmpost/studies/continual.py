"""`mmpost continual`: trains tasks in sequence and measures accuracy, transfer and forgetting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpost.config import run_config
from mmpost.core.run_files import locked
from mmpost.errors import ConfigError
from mmpost.metrics.forgetting import MEANINGS, Replicates, measured
from mmpost.metrics.intervals import Measured
from mmpost.runs.configured_task import ConfiguredTask, make_task
from mmpost.studies import sequence
from mmpost.studies.arguments import StudyArguments
from mmpost.studies.cells import Runner
from mmpost.studies.plots import plot_continual
from mmpost.studies.results import Result
from mmpost.studies.sequence import ContinualStudy
from mmpost.studies.study import Cell, Variant
from mmpost.studies.tables import continual_markdown, write_results
from mmpost.studies.tuning import Tuned, tune


def main(arguments: Sequence[str]) -> int:
    """`mmpost continual`."""
    continual(arguments)
    return 0


def continual(arguments: Sequence[str]) -> dict[str, Any]:
    """Train the arms of a study on its tasks in sequence; write study.json, study.md and study.png, return the JSON."""
    parsed = StudyArguments.parse(arguments, "tasks")
    study = sequence.load_study(parsed.get("study"), parsed.names("tasks") or [], parsed.names("arms"), parsed.settings)
    study = study.model_copy(update={"tune_seeds": parsed.count("tune_seeds", study.tune_seeds)})
    folder = parsed.folder("continual", parsed.get("study") or "-".join(study.tasks))
    with locked(folder):
        result = Continual(study, folder, parsed).run()
        write_results(folder, result, continual_markdown(result), plot_continual)
    return result


class Continual:
    """A study being run in its folder."""

    def __init__(self, study: ContinualStudy, folder: Path, arguments: StudyArguments) -> None:
        self.study = study
        self.seeds = arguments.seeds(study.seeds)
        self.model = sequence.check(study)
        self.columns = sequence.columns(study)
        summaries = {column.key: column.bench.summary for column in self.columns}
        first = ConfiguredTask.load(run_config.load([dict(sequence.base_cell(study, ()).settings)])[0])
        summaries |= {bench.name: bench.summary for bench in first.benches("val")}
        self.runner = Runner.from_arguments(arguments, folder, self._tasks(), summaries)

    def _tasks(self) -> list[str]:
        """Names of all tasks that are trained or evaluated."""
        study = self.study
        trained = [sequence.task_study(study, entry, arm).task for entry in study.trained for arm in study.arms]
        evaluated = [entry.task for entry in (study.tasks | study.general).values()]
        return list(dict.fromkeys([*trained, *evaluated]))

    def run(self) -> dict[str, Any]:
        """The content of study.json."""
        study, columns = self.study, self.columns
        bases = [self._row(result.successful()) for result in self.runner.run(self._base_cells())]
        tuned = self._tune()
        runs = self._train({arm: tuned[arm]["chosen"] for arm in study.arms})
        entries: dict[str, Any] = {}
        values: dict[str, dict[str, Measured]] = {}
        for arm, seeds in runs.items():
            rows = [[self._row(result) for result in results] for results in seeds]
            # The runs of the tasks are followed by the joint run, if the study has one.
            joint = [row for results in rows for row in results[len(study.tasks) :]]
            values[arm] = measured(bases, [results[: len(study.tasks)] for results in rows], joint)
            estimates = {name: value.estimate().as_dict() for name, value in values[arm].items()}
            entries[arm] = {
                "steps": [result.cell.steps for result in seeds[0]],
                "seconds": [[result.measured.seconds for result in results] for results in seeds],
                **tuned[arm],
                "measures": {name: estimates[name] for name in MEANINGS if name in estimates},
                "matrix": {name: value for name, value in estimates.items() if name not in MEANINGS},
            }
        for arm, entry in entries.items():
            opponent = study.opponent(arm)
            gaps = {name: values[arm][name] - values[opponent][name] for name in entry["measures"]}
            entry["against"] = opponent
            entry["difference"] = {n: gap.estimate().as_dict() for n, gap in gaps.items()} if arm != opponent else {}
        samples = {column.name: len(column.bench.source) for column in columns}
        limit = run_config.load([dict(self._base_cells()[0].settings)])[0].eval.max_samples
        return {
            "model": self.model,
            "tasks": list(study.tasks),
            "general": list(study.general),
            "joint": study.joint is not None,
            "accuracy": {column.name: f"{column.bench.name}/{column.metric}" for column in columns},
            "samples": {name: min(limit, size) if limit else size for name, size in samples.items()},
            "seeds": self.seeds,
            "against": study.against or list(study.arms)[-1],
            "meanings": MEANINGS,
            "study": study.model_dump(mode="json"),
            "code_hash": self.runner.code,
            "other_bases": self.runner.other_bases(),
            "arms": entries,
        }

    def _base_cells(self) -> list[Cell]:
        """Runs of 0 steps: the evaluations of the models that the seeds start from."""
        return [sequence.base_cell(self.study, self.columns, seed) for seed in self.seeds]

    def _tune(self) -> dict[str, Tuned]:
        """Tune each arm on val of the first task."""
        first = next(iter(self.study.tasks.values()))
        studies = {Variant(arm): sequence.task_study(self.study, first, arm) for arm in self.study.arms}
        configs = {v: run_config.load([study.arm_settings(v.arm, {})])[0] for v, study in studies.items()}
        steps = {v: config.steps for v, config in configs.items()}
        tuned = tune(self.runner, studies, steps, {v: make_task(config).best_metric for v, config in configs.items()})
        return {v.arm: entry for v, entry in tuned.items()}

    def _train(self, values: Mapping[str, Mapping[str, float]]) -> dict[str, list[list[Result]]]:
        """For each arm and seed the runs of the tasks in order, then the joint run if there is one."""
        chains = []
        for seed in self.seeds:
            for arm in self.study.arms:
                cells = (self.study, self.columns, arm, values[arm], seed)
                chains.append((arm, [chain for chain in (sequence.chain(*cells), sequence.joint(*cells)) if chain]))
        done = iter(self.runner.run_chains([chain for _, arm_chains in chains for chain in arm_chains]))
        runs: dict[str, list[list[Result]]] = {arm: [] for arm in self.study.arms}
        for arm, arm_chains in chains:
            runs[arm].append([result.successful() for _ in arm_chains for result in next(done)])
        return runs

    def _row(self, result: Result) -> Replicates:
        """The accuracy of each column. Raises ConfigError if its samples do not have the column's metric."""
        found = result.measured.test
        for column in self.columns:
            if f"{column.key}/{column.metric}" not in found:
                known = [name.removeprefix(f"{column.key}/") for name in found if name.startswith(f"{column.key}/")]
                raise ConfigError(
                    f"{column.name}: found no metric {column.metric!r}; {column.bench.name} has {', '.join(known)}"
                )
        return [found[f"{column.key}/{column.metric}"] for column in self.columns]
