"""`mmpost continual`: trains tasks in sequence and measures accuracy, transfer and forgetting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpost.config import run_config
from mmpost.core.run_files import locked
from mmpost.errors import ConfigError
from mmpost.metrics.bootstrap import Resampled, paired_difference, summarize_seeds
from mmpost.runs.configured_task import make_task
from mmpost.studies import sequence
from mmpost.studies.arguments import StudyArguments
from mmpost.studies.cells import Result, Runner, tune
from mmpost.studies.forgetting import MEANINGS, Scored, accuracies, measures_and_matrix, resample_measures
from mmpost.studies.plots import plot_continual
from mmpost.studies.sequence import ContinualStudy
from mmpost.studies.tables import continual_markdown, write_results


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
        self.seeds = arguments.seeds
        self.model = sequence.check(study)
        self.columns = sequence.columns(study)
        self.runner = Runner.from_arguments(arguments, folder, self.model, self._tasks())

    def _tasks(self) -> list[str]:
        """Names of all tasks that are trained or evaluated."""
        study = self.study
        trained = [sequence.task_study(study, entry, arm).task for entry in study.trained for arm in study.arms]
        evaluated = [entry.task for entry in (study.tasks | study.general).values()]
        return list(dict.fromkeys([*trained, *evaluated]))

    def run(self) -> dict[str, Any]:
        """The content of study.json."""
        study, columns = self.study, self.columns
        base = self._scored(self.runner.run([sequence.base_cell(study, columns)])[0].successful())
        tuned = self._tune()
        runs = self._train({arm: tuned[arm]["chosen"] for arm in study.arms})
        entries: dict[str, Any] = {}
        resampled: dict[str, Resampled] = {}
        for arm, seeds in runs.items():
            scored = [[self._scored(result) for result in results] for results in seeds]
            # The runs of the tasks are followed by the joint run, if the study has one.
            tasks = [results[: len(study.tasks)] for results in scored]
            joint = [result for results in scored for result in results[len(study.tasks) :]]
            resampled[arm] = resample_measures(base, tasks, [column.accuracy for column in columns], joint)
            entries[arm] = {
                "steps": [result.cell.steps for result in seeds[0]],
                "seconds": [[round(result.seconds, 2) for result in results] for results in seeds],
                **tuned[arm],
                **self._measures(base, tasks, joint, resampled[arm]),
            }
        for arm, entry in entries.items():
            opponent = study.opponent(arm)
            measures = {name: values for name, values in resampled[arm].items() if name in MEANINGS}
            entry["against"] = opponent
            entry["difference"] = paired_difference(measures, resampled[opponent]) if arm != opponent else {}
        return {
            "model": self.model,
            "tasks": list(study.tasks),
            "general": list(study.general),
            "joint": study.joint is not None,
            "accuracy": {column.name: f"{column.bench.name}/{column.metric}" for column in columns},
            "samples": {column.name: len(samples) for column, samples in zip(columns, base, strict=True)},
            "seeds": self.seeds,
            "against": study.against or list(study.arms)[-1],
            "meanings": MEANINGS,
            "study": study.model_dump(mode="json"),
            "base_hash": self.runner.base,
            "code_hash": self.runner.code,
            "arms": entries,
        }

    def _tune(self) -> dict[str, dict[str, Any]]:
        """Tune each arm on val of the first task."""
        first = next(iter(self.study.tasks.values()))
        studies = {arm: sequence.task_study(self.study, first, arm) for arm in self.study.arms}
        configs = {arm: run_config.load([study.arm_settings(arm, {})])[0] for arm, study in studies.items()}
        steps = {arm: config.steps for arm, config in configs.items()}
        return tune(self.runner, studies, steps, {arm: make_task(c).best_metric for arm, c in configs.items()})

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

    def _scored(self, result: Result) -> Scored:
        """The scored samples of each column. Raises ConfigError if they do not have the column's metric."""
        scored = [result.test_samples[column.key] for column in self.columns]
        for column, samples in zip(self.columns, scored, strict=True):
            summary = column.bench.summary(samples)
            if column.metric not in summary:
                raise ConfigError(
                    f"{column.name}: found no metric {column.metric!r}; {column.bench.name} has {', '.join(summary)}"
                )
        return scored

    def _measures(
        self, base: Scored, seeds: Sequence[Sequence[Scored]], joint: Sequence[Scored], resampled: Resampled
    ) -> dict[str, Any]:
        """The `summarize_seeds` of each measure and of each entry of the accuracy matrix."""
        metrics, all_samples = [column.accuracy for column in self.columns], [range(len(samples)) for samples in base]
        base_row = accuracies(base, metrics, all_samples)
        matrices = [[accuracies(row, metrics, all_samples) for row in rows] for rows in seeds]
        joint_rows = [accuracies(row, metrics, all_samples) for row in joint] or [None] * len(seeds)
        values = [measures_and_matrix(base_row, a, row) for a, row in zip(matrices, joint_rows, strict=True)]
        summary = {name: summarize_seeds([seed[name] for seed in values], resampled[name]) for name in values[0]}
        return {
            "measures": {name: summary[name] for name in MEANINGS if name in summary},
            "matrix": {name: value for name, value in summary.items() if name not in MEANINGS},
        }
