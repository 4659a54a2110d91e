"""`mmpost continual`: one task after another, and what is learnt, transferred and forgotten on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mmpost.config import run_config
from mmpost.errors import ConfigError
from mmpost.metrics.bootstrap import Drawn, difference, scored
from mmpost.runs.configured_task import make_task
from mmpost.studies import sequence
from mmpost.studies.arguments import count, split
from mmpost.studies.cells import Result, Runner
from mmpost.studies.continual_plot import draw
from mmpost.studies.continual_tables import markdown
from mmpost.studies.forgetting import MEANINGS, Accuracy, Scored, accuracies, by_name, resampled
from mmpost.studies.sequence import ContinualStudy
from mmpost.studies.study import settings_of
from mmpost.studies.tuning import taken, tune

WORDS = ("study", "tasks", "arms", "seeds", "tune_seeds", "out", "jobs", "launch", "keep")
"""Words of the command itself; all others are settings of every task, below those of the arms."""


def main(arguments: Sequence[str]) -> int:
    """`mmpost continual`."""
    continual(arguments)
    return 0


def continual(words: Sequence[str]) -> dict[str, Any]:
    """Train the arms of a study, task after task, and write study.json, study.md and study.png."""
    own, over = split(words, WORDS)
    study = sequence.read(own.get("study"), own.get("tasks"), own.get("arms"), over)
    if "tune_seeds" in own:
        study = study.model_copy(update={"tune_seeds": count(own, "tune_seeds", 1)})
    folder = Path(own.get("out") or f"runs/continual/{Path(own.get('study') or '-'.join(study.tasks)).stem}")
    result = Continual(study, folder, own).run()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (folder / "study.md").write_text(markdown(result), encoding="utf-8")
    draw(result, folder / "study.png")
    Console().print(markdown(result), markup=False, highlight=False, soft_wrap=True)
    print(f"written: {folder / 'study.json'}, study.md, study.png")
    return result


class Continual:
    """A study at work in its folder."""

    def __init__(self, study: ContinualStudy, folder: Path, own: Mapping[str, str]) -> None:
        self.study = study
        self.seeds = list(range(count(own, "seeds", 3)))
        self.model = sequence.checked(study)
        self.columns = sequence.columns(study)
        self.runner = Runner.of(own, folder, self.model, self._tasks())

    def run(self) -> dict[str, Any]:
        """Everything that study.json holds."""
        study = self.study
        base = self._scored(self.runner.run([sequence.start(study, self.columns)])[0].whole())
        tuned = self._tune()
        best = taken(tuned)
        runs = self._trained(best)
        scores = {arm: [[self._scored(one) for one in chain] for chain in found] for arm, found in runs.items()}
        # Behind the runs of the tasks stands the one on all at once, where there is one.
        seeds = {arm: [chain[: len(study.tasks)] for chain in found] for arm, found in scores.items()}
        joint = {arm: [one for chain in found for one in chain[len(study.tasks) :]] for arm, found in scores.items()}
        drawn = {arm: resampled(base, seeds[arm], self._of(), joint[arm]) for arm in study.arms}
        against = study.against or list(study.arms)[-1]
        return {
            "model": self.model,
            "tasks": list(study.tasks),
            "general": list(study.general),
            "joint": study.joint is not None,
            "accuracy": {column.name: f"{column.bench.name}/{column.metric}" for column in self.columns},
            "samples": {column.name: len(found) for column, found in zip(self.columns, base, strict=True)},
            "seeds": self.seeds,
            "against": against,
            "meanings": MEANINGS,
            "study": study.model_dump(mode="json"),
            "base_hash": self.runner.base,
            "code_hash": self.runner.code,
            "arms": {
                arm: {
                    "steps": [one.cell.steps for one in runs[arm][0]],
                    "seconds": [[round(one.seconds, 2) for one in chain] for chain in runs[arm]],
                    "chosen": best[arm],
                    "tuning": tuned[arm],
                    **self._numbers(base, seeds[arm], joint[arm], drawn[arm]),
                    "against": against,
                    "difference": _differences(drawn[arm], drawn[against]) if arm != against else {},
                }
                for arm in study.arms
            },
        }

    def _tune(self) -> dict[str, list[dict[str, Any]]]:
        """Each arm's grid on val of the first task."""
        entry = next(iter(self.study.tasks.values()))
        studies = {arm: sequence.described(self.study, entry, arm) for arm in self.study.arms}
        steps = {arm: sequence.steps_of(one, arm, {}) for arm, one in studies.items()}
        best = {
            arm: make_task(run_config.load([settings_of(one, arm, {})])[0]).best_metric for arm, one in studies.items()
        }
        return tune(self.runner, studies, steps, best)

    def _tasks(self) -> list[str]:
        """All tasks that are trained or evaluated."""
        entries = {**self.study.tasks, **self.study.general}.values()
        learnt = [*self.study.tasks.values(), *([self.study.joint] if self.study.joint else [])]
        trained = [sequence.described(self.study, entry, arm).task for entry in learnt for arm in self.study.arms]
        return list(dict.fromkeys([*trained, *(entry.task for entry in entries)]))

    def _scored(self, result: Result) -> Scored:
        """The scored samples of each column. Raises ConfigError where they lack the metric that counts."""
        found = [result.scored[column.place] for column in self.columns]
        for column, samples in zip(self.columns, found, strict=True):
            summary = column.bench.summary(samples)
            if column.metric not in summary:
                raise ConfigError(
                    f"{column.name}: no metric {column.metric!r}; {column.bench.name} has {', '.join(summary)}"
                )
        return found

    def _trained(self, best: Mapping[str, Mapping[str, float]]) -> dict[str, list[list[Result]]]:
        """Of each arm, for each seed: the runs of the tasks in order, then that on all at once, where there is one."""
        wanted = [(arm, seed) for seed in self.seeds for arm in self.study.arms]
        given = [(self.study, self.columns, arm, best[arm], seed) for arm, seed in wanted]
        chains = [cells for one in given for cells in (sequence.chain(*one), sequence.joint(*one)) if cells]
        done = [[one.whole() for one in found] for found in self.runner.chains(chains)]
        each = len(done) // len(wanted)
        runs = [[one for part in done[i : i + each] for one in part] for i in range(0, len(done), each)]
        return {
            arm: [found for (of, _), found in zip(wanted, runs, strict=True) if of == arm] for arm in self.study.arms
        }

    def _of(self) -> list[Accuracy]:
        return [column.accuracy for column in self.columns]

    def _numbers(
        self, base: Scored, seeds: Sequence[Sequence[Scored]], joint: Sequence[Scored], drawn: Drawn
    ) -> dict[str, Any]:
        """The measures and the matrix: the value of each seed, their mean, and its interval."""
        whole = [range(len(samples)) for samples in base]
        start = accuracies(base, self._of(), whole)
        tables = [[accuracies(columns, self._of(), whole) for columns in found] for found in seeds]
        at_once = [accuracies(columns, self._of(), whole) for columns in joint] or [None] * len(seeds)
        values = [by_name(start, a, row) for a, row in zip(tables, at_once, strict=True)]
        told = {name: scored([one[name] for one in values], drawn[name]) for name in values[0]}
        return {
            "measures": {name: told[name] for name in MEANINGS if name in told},
            "matrix": {name: told[name] for name in told if name not in MEANINGS},
        }


def _differences(drawn: Drawn, other: Drawn) -> dict[str, Any]:
    """Of the measures alone."""
    return difference({name: drawn[name] for name in MEANINGS if name in drawn}, other)
