"""Runs the cells of a study, each as an ordinary `mmpost train` in its own process, and reads their results."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from mmpost.config import parsing, registry, run_config
from mmpost.core import run_files
from mmpost.errors import TrainError
from mmpost.listeners.files import eval_samples
from mmpost.metrics.intervals import GROUPS, Summary, replicates
from mmpost.runs import base_models, checkpoint
from mmpost.runs.code_hash import fingerprint
from mmpost.studies.arguments import StudyArguments
from mmpost.studies.results import SPENT, CellFile, Evaluated, Result
from mmpost.studies.study import Cell


@dataclass
class Runner:
    """Trains cells, up to `jobs` at once; a cell whose finished run is in the folder is not trained again."""

    folder: Path
    code: str
    """Hash of the code that computes the results."""
    summaries: Mapping[str, Summary] = field(default_factory=dict)
    """The metrics of each bench by its name, on test and on val."""
    metrics: frozenset[str] = frozenset()
    """The metrics ("bench/metric") that are kept with the samples' uncertainty; empty: all."""
    jobs: int = 1
    launch: str = ""
    """Command that starts Python for a cell, such as `torchrun --nproc-per-node=8`; empty: this interpreter."""
    keep: bool = False
    """Keep the checkpoints of finished cells."""
    log: Callable[[str], None] = print
    _bases: dict[tuple[str, int, int], str] = field(default_factory=dict)
    """What models are by name, base seed and run seed."""
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _slots: list[int] = field(default_factory=list)
    """The free ones of the `jobs` slots, each with its own GPU."""
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _protected: set[Path] = field(default_factory=set)
    """Folders of runs whose weights are still needed to start other runs."""

    @classmethod
    def from_arguments(
        cls,
        arguments: StudyArguments,
        folder: Path,
        tasks: Iterable[str],
        summaries: Mapping[str, Summary],
        metrics: Iterable[str] = (),
    ) -> Runner:
        """A runner with the command's options, for cells that train or evaluate `tasks`."""
        return cls(
            folder,
            fingerprint(*(str(registry.module(name, "mmpost.tasks").__file__) for name in tasks)),
            summaries,
            frozenset(metrics),
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
                start = time.monotonic()
                self._train(result, results[i - 1].folder if i else None)
                self._record(result, time.monotonic() - start)
                self.log(f"{result.cell.title}: {result.failure or f'{result.measured.seconds:.0f} s'}")
                if i:
                    self._clean_up(results[i - 1])
            elif result.ended and not self._is_recorded(result):
                self._record(result)
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
        results, key = [], self.base(cells[0])
        for cell in cells:
            key = cell.key(key, self.code)
            words = [*(["tune"] if cell.tuning else []), cell.arm, *filter(None, [cell.level]), str(cell.seed), key]
            name = "-".join(words)
            results.append(Result(cell, self.folder / "cells" / name))
        return results

    def base(self, cell: Cell) -> str:
        """What a cell's first weights are: the recipe of a built-in base, which is not trained for that, else a hash of
        the weights, or the name of a hub model."""
        config = run_config.load([dict(cell.settings)])[0]
        name, base_seed = config.model.name, config.model.base_seed
        with self._lock:
            if (name, base_seed, config.seed) not in self._bases:
                identity = base_models.identity(name, base_seed)
                if not identity:
                    folder = base_models.resolve(name, config.seed)
                    identity = checkpoint.weights_hash(folder) or folder
                self._bases[name, base_seed, config.seed] = identity
            return self._bases[name, base_seed, config.seed]

    def other_bases(self) -> list[str]:
        """The files of cells that started from other weights than those that the same recipe gives here, as far as its
        base is trained here. Numerics differ between machines; such cells do not belong together."""
        out = []
        for file in sorted((self.folder / "cells").glob("*.json")):
            cell = CellFile.model_validate_json(file.read_text(encoding="utf-8"))
            here = base_models.trained_hash(cell.base)
            if here and cell.base_hash and here != cell.base_hash:
                out.append(file.name)
        return out

    def _is_recorded(self, result: Result) -> bool:
        """Whether its file exists, which a kill may have prevented, with the metrics that the study asks for today."""
        return result.file.exists() and (result.cell.tuning or self.metrics <= result.measured.test.keys())

    def _record(self, result: Result, wall: float = 0.0) -> None:
        """Write the CellFile of a run that has ended, whose process took `wall` seconds."""
        cell, run = result.cell, result.folder
        summary, lines = run_files.read_summary(run), run_files.read_metrics(run)
        failed = summary["status"] != "done"
        is_first = summary.get("model") == run_config.load([dict(cell.settings)])[0].model.name
        curves = sorted((run / "eval").glob("step-*.jsonl")) if not (failed or cell.tuning) else []
        measured = CellFile(
            arm=cell.arm,
            level=cell.level,
            seed=cell.seed,
            steps=cell.steps,
            values=dict(cell.values),
            tuning=cell.tuning,
            failure=str(summary["reason"]) if failed else "",
            base=self.base(cell),
            base_hash=str(summary["base_hash"]) if is_first else "",
            seconds=round(sum(line["time/step"] for line in lines), 2),
            wall=round(wall, 1),
            spent={name: sum(line.get(f"count/{metric}", 0.0) for line in lines) for name, metric in SPENT.items()},
            val={k.removeprefix("eval/"): v for k, v in (lines or [{}])[-1].items() if k.startswith("eval/")},
            test={} if failed else self._replicates(run / "eval" / "after.jsonl"),
            curve=[Evaluated(step=int(f.stem.removeprefix("step-")), metrics=self._replicates(f)) for f in curves],
        )
        run_files.write(result.file, measured.model_dump_json(exclude_defaults=True).encode())

    def _replicates(self, file: Path) -> dict[str, list[float]]:
        """The metrics of an evaluation, rounded to what a table shows and some digits more."""
        benches = eval_samples(file)
        groups = min([GROUPS, *map(len, benches.values())])  # equal, so that measures may combine benches
        values = {
            f"{bench}/{name}": row
            for bench, samples in benches.items()
            for name, row in replicates(self.summaries[bench], samples, groups).items()
        }
        return {
            name: [float(f"{v:.6g}") for v in row]
            for name, row in values.items()
            if not self.metrics or name in self.metrics
        }

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
            changes = {"model": {"name": str(start), "base_seed": 0}} if start else {}
            settings = run_config.merge(cell.settings, changes)
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
        if not result.ended:
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
