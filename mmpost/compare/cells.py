"""Running the cells of a study, each an ordinary run in a process of its own, and reading their results."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mmpost import config, runs
from mmpost.compare.study import Cell
from mmpost.errors import TrainError
from mmpost.listeners.files import eval_samples
from mmpost.types import Sample


@dataclass(frozen=True)
class Result:
    """A finished cell."""

    cell: Cell
    folder: Path

    @cached_property
    def failed(self) -> str:
        """Why the run could not be finished (a loss that is not finite, ...); empty where it was."""
        summary = runs.read_json(self.folder / "summary.json")
        return "" if summary["status"] == "done" else str(summary["reason"])

    @cached_property
    def seconds(self) -> float:
        """Seconds of all optimiser steps, rollouts and rewards included; loading and evaluation left out."""
        return sum(line["time/step"] for line in runs.read_lines(self.folder / "metrics.jsonl"))

    def val(self, metric: str) -> float:
        """A metric on val after the last step; the worst possible for a run that failed."""
        if self.failed:
            return -float("inf")
        sign = -1.0 if metric.startswith("-") else 1.0
        last = runs.read_lines(self.folder / "metrics.jsonl")[-1]
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

    def run(self, cells: Sequence[Cell]) -> list[Result]:
        """The results of `cells` in order; those that are in the folder already are not run again.

        Raises TrainError naming the log of a cell that died; the others are finished before, and kept.
        """
        self._places = list(range(self.jobs))
        with ThreadPoolExecutor(self.jobs) as pool:
            futures = [pool.submit(self._one, cell) for cell in cells]
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

    def _one(self, cell: Cell) -> Result:
        key = cell.key(self.base, self.code)
        folder = self.folder / "cells" / f"{'tune-' if cell.tuning else ''}{cell.arm}-{cell.seed}-{key}"
        result = Result(cell, folder)
        if _finished(folder):
            return result
        self._train(cell, folder)
        if not self.keep:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        self.say(f"{cell.title}: {result.failed or f'{result.seconds:.0f} s'}")
        return result

    def _train(self, cell: Cell, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        settings, log = folder.with_suffix(".yaml"), folder.with_suffix(".log")
        if (folder / "checkpoints" / "last").exists():
            words = [f"resume={folder}"]
        else:
            shutil.rmtree(folder, ignore_errors=True)
            settings.write_text(config.dump(cell.settings), encoding="utf-8")
            words = [f"config={settings}", f"out={folder}"]
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


def _finished(folder: Path) -> bool:
    """A run that ended by itself: done, or failed in training, which it would do again."""
    summary = runs.read_json(folder / "summary.json")
    return summary.get("status") == "done" or str(summary.get("reason", "")).startswith("TrainError")
