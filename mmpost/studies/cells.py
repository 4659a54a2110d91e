"""Running the cells of a study, each an ordinary run in a process of its own, and reading their results."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mmpost.config import registry, run_config
from mmpost.core import run_files
from mmpost.errors import TrainError
from mmpost.listeners.files import eval_samples
from mmpost.runs import base_models, checkpoint
from mmpost.runs.code_hash import fingerprint
from mmpost.studies.arguments import count
from mmpost.studies.study import Cell
from mmpost.types import Sample


@dataclass(frozen=True)
class Result:
    """A finished cell."""

    cell: Cell
    folder: Path

    @property
    def failed(self) -> str:
        """Why the run could not be finished (a loss that is not finite, ...); empty where it was."""
        summary = run_files.read_json(self.folder / "summary.json")
        return "" if summary["status"] == "done" else str(summary["reason"])

    def whole(self) -> Result:
        """Itself. Raises TrainError for a run that could not be finished."""
        if self.failed:
            raise TrainError(f"{self.cell.title} failed: {self.failed}; its folder is {self.folder}")
        return self

    @property
    def resumable(self) -> bool:
        """Whether its weights are there, to go on with or to start from."""
        return (self.folder / "checkpoints" / "last").exists()

    def forget(self) -> None:
        """Drop its weights."""
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    @cached_property
    def seconds(self) -> float:
        """Seconds of all optimiser steps, rollouts and rewards included; loading and evaluation left out."""
        return sum(line["time/step"] for line in run_files.read_lines(self.folder / "metrics.jsonl"))

    def val(self, metric: str) -> float:
        """A metric on val after the last step; the worst possible for a run that failed."""
        if self.failed:
            return -float("inf")
        sign = -1.0 if metric.startswith("-") else 1.0
        last = run_files.read_lines(self.folder / "metrics.jsonl")[-1]
        return sign * float(last[f"eval/{metric.removeprefix('-')}"])

    @cached_property
    def scored(self) -> Mapping[str, list[Sample]]:
        """The scored test samples of each bench."""
        return eval_samples(self.folder / "eval" / "after.jsonl")


@dataclass
class Runner:
    """Finds or trains cells; `jobs` of them side by side."""

    folder: Path
    base: str
    """Hash of the weights that all start from."""
    code: str
    """Hash of the code that computes them."""
    jobs: int = 1
    launch: str = ""
    """What starts Python for a cell, such as `torchrun --nproc-per-node=8`; empty: this Python."""
    keep: bool = False
    """Keep the checkpoints of finished cells."""
    say: Callable[[str], None] = print
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _places: list[int] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _spared: set[Path] = field(default_factory=set)
    """Folders of runs whose weights others have yet to start from."""

    @classmethod
    def of(cls, own: Mapping[str, str], folder: Path, model: str, tasks: Iterable[str]) -> Runner:
        """As a command's own words say, from the weights of `model` and with the code that the tasks import."""
        base = base_models.resolve(model, 0)
        return cls(
            folder,
            checkpoint.weights_hash(base) or base,
            fingerprint(*(str(registry.module(name, "mmpost.tasks").__file__) for name in tasks)),
            jobs=count(own, "jobs", 1),
            launch=own.get("launch", ""),
            keep=own.get("keep", "false") == "true",
        )

    def run(self, cells: Sequence[Cell]) -> list[Result]:
        """The results of `cells` in order; those that are in the folder already are not run again.

        Raises TrainError naming the log of a cell that died; the others are finished before, and kept.
        """
        return [result for (result,) in self.chains([[cell] for cell in cells])]

    def after(self, pairs: Sequence[tuple[Cell | None, Cell]]) -> list[Result]:
        """`run` for the second of each pair, which starts from the weights that the first ends with, if there is one.

        What several start from is trained once.
        """
        chains = [[cell] if start is None else [start, cell] for start, cell in pairs]
        leading: dict[Path, Sequence[Cell]] = {}
        for chain in chains:
            results = self._results(chain)
            if len(chain) > 1 and not _finished(results[-1].folder):
                leading.setdefault(results[0].folder, chain)
        self._spared |= leading.keys()
        try:
            self.chains(list(leading.values()))
            found = self.chains(chains)
        finally:
            self._spared -= leading.keys()
        for chain in leading.values():
            self._forget(self._results(chain)[0])
        return [results[-1] for results in found]

    def chains(self, chains: Sequence[Sequence[Cell]]) -> list[list[Result]]:
        """`run` for cells of which each starts from the weights that the one before it in its chain ends with.

        A chain stops with a TrainError at a cell that cannot be finished.
        """
        self._places = list(range(self.jobs))
        with ThreadPoolExecutor(self.jobs) as pool:
            futures = [pool.submit(self._chain, chain) for chain in chains]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            except KeyboardInterrupt:
                for process in self._running.values():
                    process.send_signal(signal.SIGTERM)  # finishes its step and saves
                raise
            finally:
                for future in futures:
                    future.cancel()
        return [future.result() for future in futures]

    def _chain(self, cells: Sequence[Cell]) -> list[Result]:
        results = self._results(cells)
        needed = _needed(results)
        for place, result in enumerate(results):
            if needed[place]:
                self._train(result, results[place - 1].folder if place else None)
                self.say(f"{result.cell.title}: {result.failed or f'{result.seconds:.0f} s'}")
                if place:
                    self._forget(results[place - 1])
            if place < len(results) - 1:
                result.whole()
        if needed[-1]:
            self._forget(results[-1])
        return results

    def _forget(self, result: Result) -> None:
        if not self.keep and result.folder not in self._spared:
            result.forget()

    def _results(self, cells: Sequence[Cell]) -> list[Result]:
        """The places of a chain's cells; the key of each stands, for the next, for the weights that it starts from."""
        found, key = [], self.base
        for cell in cells:
            key = cell.key(key, self.code)
            name = f"{'tune-' if cell.tuning else ''}{cell.arm}-{cell.seed}-{key}"
            found.append(Result(cell, self.folder / "cells" / name))
        return found

    def _train(self, result: Result, model: Path | None) -> None:
        """Start or resume the run, from the weights of the run `model` where there is one."""
        cell, folder = result.cell, result.folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        file, log = folder.with_suffix(".yaml"), folder.with_suffix(".log")
        if result.resumable:
            words = [f"resume={folder}"]
        else:
            shutil.rmtree(folder, ignore_errors=True)
            settings = run_config.merge(cell.settings, {"model": str(model)} if model else {})
            file.write_text(run_config.dump(settings), encoding="utf-8")
            words = [f"config={file}", f"out={folder}"]
        start = shlex.split(self.launch) if self.launch else [sys.executable]
        with self._lock:
            place = self._places.pop()
        try:
            with log.open("ab") as out:
                process = subprocess.Popen(
                    [*start, "-m", "mmpost.cli", "train", *words], stdout=out, stderr=out, env=self._devices(place)
                )
                self._running[folder.name] = process
                code = process.wait()
                del self._running[folder.name]
        finally:
            with self._lock:
                self._places.append(place)
        if not _finished(folder):
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise TrainError(f"{cell.title}: exit code {code}; the end of {log}:\n{tail}")

    def _devices(self, place: int) -> dict[str, str]:
        """Side by side, cells take one GPU each, of those that this process may use."""
        import torch

        environment = dict(os.environ)
        if self.jobs > 1 and torch.cuda.device_count():
            mine = os.environ.get("CUDA_VISIBLE_DEVICES", "") or ",".join(map(str, range(torch.cuda.device_count())))
            names = mine.split(",")
            environment["CUDA_VISIBLE_DEVICES"] = names[place % len(names)]
        return environment


def _needed(results: Sequence[Result]) -> list[bool]:
    """Which cells of a chain must run: those not finished, and what these start from where its weights are gone."""
    needed: list[bool] = []
    for result in reversed(results):
        asked = bool(needed) and needed[-1] and not result.resumable
        needed.append(not _finished(result.folder) or (asked and not result.failed))
    return needed[::-1]


def _finished(folder: Path) -> bool:
    """A run that ended by itself: done, or failed in training, which it would do again."""
    summary = run_files.read_json(folder / "summary.json")
    return summary.get("status") == "done" or str(summary.get("reason", "")).startswith("TrainError")
