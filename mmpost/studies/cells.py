"""Runs the cells of a study, each as an ordinary `mmpost train` in its own process, reads their results, and tunes."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mmpost.config import parsing, registry, run_config
from mmpost.core import run_files
from mmpost.errors import TrainError
from mmpost.listeners.files import eval_samples
from mmpost.runs import base_models, checkpoint
from mmpost.runs.code_hash import fingerprint
from mmpost.studies.arguments import StudyArguments
from mmpost.studies.study import Cell, Study
from mmpost.types import Sample


@dataclass(frozen=True)
class Result:
    """A cell and the folder of its run."""

    cell: Cell
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether the run is done, or failed in training (then a repetition would fail, too)."""
        summary = run_files.read_summary(self.folder)
        return summary.get("status") == "done" or str(summary.get("reason", "")).startswith("TrainError")

    @property
    def failure(self) -> str:
        """Why a finished run failed (for example, a non-finite loss); empty if it succeeded."""
        summary = run_files.read_summary(self.folder)
        return "" if summary["status"] == "done" else str(summary["reason"])

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

    @cached_property
    def seconds(self) -> float:
        """Time of all optimizer steps including rollouts and rewards; without loading and evaluation."""
        return sum(line["time/step"] for line in run_files.read_metrics(self.folder))

    def val_metric(self, name: str) -> float:
        """The metric on val after the last step ("-bench/metric": negated); -inf for a failed run."""
        if self.failure:
            return -float("inf")
        sign = -1.0 if name.startswith("-") else 1.0
        last = run_files.read_metrics(self.folder)[-1]
        return sign * float(last[f"eval/{name.removeprefix('-')}"])

    @cached_property
    def test_samples(self) -> Mapping[str, list[Sample]]:
        """The scored test samples of each bench."""
        return eval_samples(self.folder / "eval" / "after.jsonl")


@dataclass
class Runner:
    """Trains cells, up to `jobs` at once; a cell whose finished run is in the folder is not trained again."""

    folder: Path
    base: str
    """Hash of the initial weights."""
    code: str
    """Hash of the code that computes the results."""
    jobs: int = 1
    launch: str = ""
    """Command that starts Python for a cell, such as `torchrun --nproc-per-node=8`; empty: this interpreter."""
    keep: bool = False
    """Keep the checkpoints of finished cells."""
    log: Callable[[str], None] = print
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _slots: list[int] = field(default_factory=list)
    """The free ones of the `jobs` slots, each with its own GPU."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _protected: set[Path] = field(default_factory=set)
    """Folders of runs whose weights are still needed to start other runs."""

    @classmethod
    def from_arguments(cls, arguments: StudyArguments, folder: Path, model: str, tasks: Iterable[str]) -> Runner:
        """A runner with the command's options, for cells that start from `model` and train or evaluate `tasks`."""
        base = base_models.resolve(model, 0)
        return cls(
            folder,
            checkpoint.weights_hash(base) or base,
            fingerprint(*(str(registry.module(name, "mmpost.tasks").__file__) for name in tasks)),
            jobs=arguments.count("jobs", 1),
            launch=arguments.get("launch"),
            keep=arguments.get("keep") == "true",
        )

    def run(self, cells: Sequence[Cell]) -> list[Result]:
        """The results of independent cells, in order.

        Raises TrainError, with the end of the log, if the process of a cell dies; finished cells are kept.
        """
        return [result for (result,) in self.run_chains([[cell] for cell in cells])]

    def run_from_starts(self, pairs: Sequence[tuple[Cell | None, Cell]]) -> list[Result]:
        """The results of the second cell of each pair, which starts from the weights of the first if there is one.

        A start that several cells share is trained once.
        """
        chains = [[cell] if start is None else [start, cell] for start, cell in pairs]
        # One chain for each start whose weights are needed runs first; the start's weights are kept for the others.
        first_chains: dict[Path, Sequence[Cell]] = {}
        for chain in chains:
            results = self._results(chain)
            if len(chain) > 1 and not results[-1].finished:
                first_chains.setdefault(results[0].folder, chain)
        self._protected |= first_chains.keys()
        try:
            self.run_chains(list(first_chains.values()))
            done = self.run_chains(chains)
        finally:
            self._protected -= first_chains.keys()
        for chain in first_chains.values():
            self._clean_up(self._results(chain)[0])
        return [results[-1] for results in done]

    def run_chains(self, chains: Sequence[Sequence[Cell]]) -> list[list[Result]]:
        """The results of chains of cells; each cell of a chain starts from the weights of the one before it.

        A chain ends with TrainError at a cell that fails, unless it is the last.
        """
        self._slots = list(range(self.jobs))
        with ThreadPoolExecutor(self.jobs) as pool:
            futures = [pool.submit(self._run_chain, chain) for chain in chains]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            except KeyboardInterrupt:
                for process in self._running.values():
                    process.send_signal(signal.SIGTERM)  # the run finishes its step and saves a checkpoint
                raise
            finally:
                for future in futures:
                    future.cancel()
        return [future.result() for future in futures]

    def _run_chain(self, cells: Sequence[Cell]) -> list[Result]:
        results = self._results(cells)
        missing = _missing(results)
        for i, result in enumerate(results):
            if missing[i]:
                self._train(result, results[i - 1].folder if i else None)
                self.log(f"{result.cell.title}: {result.failure or f'{result.seconds:.0f} s'}")
                if i:
                    self._clean_up(results[i - 1])
            if i < len(results) - 1:
                result.successful()
        if missing[-1]:
            self._clean_up(results[-1])
        return results

    def _clean_up(self, result: Result) -> None:
        if not self.keep and result.folder not in self._protected:
            result.delete_weights()

    def _results(self, cells: Sequence[Cell]) -> list[Result]:
        """The results of a chain's cells. A cell's key represents its weights in the key of the next cell."""
        results, key = [], self.base
        for cell in cells:
            key = cell.key(key, self.code)
            name = f"{'tune-' if cell.tuning else ''}{cell.arm}-{cell.seed}-{key}"
            results.append(Result(cell, self.folder / "cells" / name))
        return results

    def _train(self, result: Result, start: Path | None) -> None:
        """Train or resume a cell, from the weights of the run `start` if there is one."""
        cell, folder = result.cell, result.folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        run_files.wait_until_free(folder)
        config, log = folder.with_suffix(".yaml"), folder.with_suffix(".log")
        if result.has_weights:
            arguments = [f"resume={folder}"]
        else:
            shutil.rmtree(folder, ignore_errors=True)
            settings = run_config.merge(cell.settings, {"model": str(start)} if start else {})
            config.write_text(parsing.dump(settings), encoding="utf-8")
            arguments = [f"config={config}", f"out={folder}"]
        # A launcher ends its processes itself.
        started_by = [] if self.launch else [f"--started-by={os.getpid()}"]
        python = shlex.split(self.launch) or [sys.executable]
        command = [*python, "-m", "mmpost.cli", "train", *started_by, *arguments]
        with self._lock:
            slot = self._slots.pop()
        try:
            with log.open("ab") as out:
                process = subprocess.Popen(command, stdout=out, stderr=out, env=self._environment(slot))
                self._running[folder.name] = process
                code = process.wait()
                del self._running[folder.name]
        finally:
            with self._lock:
                self._slots.append(slot)
        if not result.finished:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise TrainError(f"{cell.title}: exit code {code}; the end of {log}:\n{tail}")

    def _environment(self, slot: int) -> dict[str, str]:
        """Environment of a cell's process; with several jobs each slot has one of the GPUs visible to this process."""
        import torch

        environment = dict(os.environ)
        if self.jobs > 1 and torch.cuda.device_count():
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "") or ",".join(map(str, range(torch.cuda.device_count())))
            gpus = visible.split(",")
            environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
        return environment


def _missing(results: Sequence[Result]) -> list[bool]:
    """Which cells of a chain must be trained: unfinished ones, and their predecessors without weights."""
    missing: list[bool] = []
    for result in reversed(results):
        needed = bool(missing) and missing[-1] and not result.has_weights
        missing.append(not result.finished or (needed and not result.failure))
    return missing[::-1]


def tune(
    runner: Runner, studies: Mapping[str, Study], steps: Mapping[str, int], metrics: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Tune each arm on its own grid by its metric on val (`Result.val_metric`), averaged over `tune_seeds` runs.

    `studies`, `steps` and `metrics` have an entry for each arm. Returns for each arm "chosen", the best values, and
    "tuning", its points: "values", the mean metric "val", and the metric of each of the "seeds". A grid of one point is
    not trained.
    """
    grids = {arm: study.grid(arm) for arm, study in studies.items()}
    cells = [
        studies[arm].with_start(studies[arm].cell(arm, values, seed, steps[arm], tuning=True))
        for arm, grid in grids.items()
        if len(grid) > 1
        for values in grid
        for seed in range(studies[arm].tune_seeds)
    ]
    done = iter(runner.run_from_starts(cells))
    tuned = {}
    for arm, grid in grids.items():
        points = []
        for values in grid:
            seeds = [
                next(done).val_metric(metrics[arm]) for _ in range(studies[arm].tune_seeds if len(grid) > 1 else 0)
            ]
            points.append({"values": values, "val": statistics.mean(seeds) if seeds else 0.0, "seeds": seeds})
        tuned[arm] = {"chosen": max(points, key=lambda point: point["val"])["values"], "tuning": points}
    return tuned
