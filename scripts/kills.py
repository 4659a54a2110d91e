#!/usr/bin/env python
"""Seeded kills (SIGKILL) of training, saving, predicting, selecting and building a base: nothing may be lost.

    python scripts/kills.py [--kills 1000] [--commands 60] [--done kills.json] [--kinds train save ...] [--out kills]
    python scripts/kills.py --only save:17            # one seed again

Every seed is a tiny run of one kind, in a process forked from this one, which has imported everything. It is killed one
to six times: at a share of its duration, before, at or right after the k-th file operation in its folder, or in the
middle of a write; sometimes a second process on the same folder is refused meanwhile, or waits. Then the command that a
user would run goes on to the end, and everything on disk must equal an uninterrupted run of this machine and commit bit
for bit: weights, optimizer state, metrics, replies, evaluations and links, and nothing may be left over. `--commands`
adds kills of whole commands, in new interpreters.

`--done` keeps which seeds have finished, so that the work goes on later or elsewhere; it is counted anew for another
commit, unless `--keep`. Folders of seeds that lost something stay in `--out`, with a diary of the kills. Exit status 1:
something was lost.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import argparse  # noqa: E402
import importlib  # noqa: E402
import json  # noqa: E402
import random  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from contextlib import suppress  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402
from kill_parts import forks, same  # noqa: E402
from kill_parts.kinds import FINISHED, KINDS, Kind, write_inputs  # noqa: E402
from kill_parts.seeds import Command, Outcome, Reference, Seed  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

import mmpost  # noqa: E402
from mmpost.core import run_files  # noqa: E402

ROOT = Path(mmpost.__file__).resolve().parents[1]
PROGRESS_SECONDS = 30.0
MOST_LOST = 20
"""Seeds that lost something after which there is no point in going on."""


class Kills:
    """The work of one start of the script."""

    def __init__(self, out: Path, kinds: Sequence[Kind]) -> None:
        self.out, self.inputs = out.resolve(), out.resolve() / "inputs"
        self.kinds = {kind.name: kind for kind in kinds}
        self.references: dict[str, Reference] = {}
        self.startup = 0.0
        """Seconds that a whole command takes longer than a forked one."""
        torch.set_num_threads(1)

    def prepare(self) -> None:
        """Make the inputs and the references, each twice: a kind that differs from itself proves nothing."""
        for name in ("inputs", "references"):
            shutil.rmtree(self.out / name, ignore_errors=True)
        write_inputs(self.inputs)
        start = Kind("finished", (*FINISHED, "out={out}"))
        self._uninterrupted(start, self.inputs, self.inputs / "finished")
        for name, kind in self.kinds.items():
            folder = self.out / "references" / name
            self._uninterrupted(kind, folder, folder / "work")
            again = self._uninterrupted(kind, folder, folder / "again")
            if found := same.differences(folder / "again", folder / "work"):
                sys.exit(f"{name}: two runs without a kill differ: {'; '.join(found)}")
            counts = [list(map(int, r.split()[1:])) for r in again.reports if r.startswith("counts")]
            operations, writes = (max(count[i] for count in counts) for i in (0, 1))
            self.references[name] = Reference(folder / "work", again.seconds, operations, writes)
            shutil.rmtree(folder / "again")

    def _uninterrupted(self, kind: Kind, folder: Path, work: Path) -> forks.Process:
        """Run a kind to its end, and import what it imported, so that later forks need not."""
        folder.mkdir(parents=True, exist_ok=True)
        work.mkdir(parents=True, exist_ok=True)
        if kind.prepare is not None:
            kind.prepare(work, self.inputs)
        modules = self.out / "modules.json"

        def run(arguments: Sequence[str]) -> int:
            code = kind.run(arguments)
            modules.write_text(json.dumps(sorted(sys.modules)))
            return code

        arguments = kind.arguments(work, self.inputs, first=True)
        environment = kind.environment(work, self.inputs)
        process = forks.forked(arguments, run, folder / "log.txt", environment, [work], None)
        process.wait()
        if process.status:
            sys.exit(f"{kind.name}: an uninterrupted run ends with {process.status}: {process.output()[-2000:]}")
        for name in json.loads(modules.read_text()):
            if name not in sys.modules and not name.startswith("_"):
                with suppress(Exception):  # a module that was made rather than imported
                    importlib.import_module(name)
        return process

    def measure_startup(self) -> None:
        """How long a whole command takes until it works."""
        kind = next(kind for kind in self.kinds.values() if kind.whole)
        work = self.out / "references" / "command"
        work.mkdir(parents=True)
        if kind.prepare is not None:
            kind.prepare(work, self.inputs)
        environment = kind.environment(work, self.inputs)
        process = forks.command(kind.arguments(work, self.inputs, first=True), work.with_suffix(".log"), environment)
        process.wait()
        self.startup = max(1.0, process.seconds - self.references[kind.name].seconds)

    def run(self, name: str) -> Outcome:
        """One seed, KIND:NUMBER or, for a whole command, KIND:command-NUMBER."""
        kind = self.kinds[name.split(":")[0]]
        folder = self.out / "seeds" / name.replace(":", "-")
        parts = (name, kind, self.references[kind.name], folder, self.inputs)
        return (Command(*parts, self.startup) if ":command-" in name else Seed(*parts)).run()

    def drawn(self, number: int, whole: bool) -> str:
        """The name of a seed."""
        kinds = [kind for kind in self.kinds.values() if kind.whole or not whole]
        kind = random.Random(f"{number} {whole}").choices(kinds, [kind.weight for kind in kinds])[0]
        return f"{kind.name}:{'command-' * whole}{number}"


class Done:
    """The file of finished seeds: which, with how many kills and refused processes, and of which commit."""

    def __init__(self, file: Path | None, commit: str, keep: bool) -> None:
        self.file, self.commit = file, commit
        self.seeds: dict[str, list[int]] = {}
        """[kills, refused] by the name of the seed."""
        self.lost: dict[str, str] = {}
        """What was lost, by the name of the seed; these run again at the next start."""
        content = json.loads(file.read_text()) if file is not None and file.exists() else {}
        if content and content["commit"] != commit and not keep:
            print(f"{file} is of commit {content['commit'][:12]}, this is {commit[:12]}: counting anew", flush=True)
        elif content:
            self.seeds = content["seeds"]

    def add(self, name: str, outcome: Outcome) -> None:
        if outcome.error:
            self.lost[name] = outcome.error
        else:
            self.seeds[name] = [outcome.kills, outcome.refused]
        if self.file is not None:
            content = {"commit": self.commit, "kills": self.kills(False), "kills_of_commands": self.kills(True)}
            text = json.dumps({**content, "seeds": self.seeds, "lost": self.lost})
            run_files.write(self.file, text.encode())

    def kills(self, whole: bool) -> int:
        """How many there were, of forked runs or of whole commands."""
        return sum(kills for name, (kills, _) in self.seeds.items() if (":command-" in name) == whole)


def commit() -> str:
    """The commit of mmpost, with "+" where files have changed since; "unknown" outside of a repository."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else "unknown"

    return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "-uno"))


def table(done: Done, kinds: Sequence[str]) -> Table:
    out = Table("kind", "seeds", "kills", "second processes", "lost", title="kills")
    for whole in (False, True):
        for kind in kinds:
            mine = [v for n, v in done.seeds.items() if n.split(":")[0] == kind and (":command-" in n) == whole]
            lost = sum(n.split(":")[0] == kind and (":command-" in n) == whole for n in done.lost)
            if mine or lost:
                cells = (len(mine) + lost, sum(v[0] for v in mine), sum(v[1] for v in mine), lost)
                out.add_row(f"{kind}, whole command" if whole else kind, *map(str, cells))
    totals = (len(done.seeds) + len(done.lost), done.kills(False) + done.kills(True))
    out.add_row("all", *map(str, (*totals, sum(v[1] for v in done.seeds.values()), len(done.lost))))
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill until the wanted numbers are reached; returns 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--commands", type=int, default=0)
    parser.add_argument("--done", type=Path)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--kinds", nargs="+", choices=[kind.name for kind in KINDS])
    parser.add_argument("--out", type=Path, default=Path("kills"))
    parser.add_argument("--only", nargs="+", default=[])
    parsed = parser.parse_args(arguments)
    wanted = {name.split(":")[0] for name in parsed.only} or parsed.kinds
    work = Kills(parsed.out, [kind for kind in KINDS if not wanted or kind.name in wanted])
    started = time.monotonic()
    work.prepare()
    if parsed.commands or any(":command-" in name for name in parsed.only):
        work.measure_startup()
    assert threading.active_count() == 1, f"forks would have broken locks: {threading.enumerate()}"
    print(f"references of {len(work.kinds)} kinds in {time.monotonic() - started:.0f} s", flush=True)
    done = Done(None if parsed.only else parsed.done, commit(), parsed.keep)
    for name in parsed.only:
        outcome = work.run(name)
        print(*outcome.diary, sep="\n")
        report(name, outcome, done)
    if not parsed.only:
        for whole, target in ((False, parsed.kills), (True, parsed.commands)):
            kill(work, done, whole, target)
    Console().print(table(done, list(work.kinds)))
    return 1 if done.lost else 0


def kill(work: Kills, done: Done, whole: bool, target: int) -> None:
    """Run seeds that are not done yet until there are `target` kills."""
    number, last, lost = 0, time.monotonic(), len(done.lost)
    while done.kills(whole) < target and len(done.lost) < lost + MOST_LOST:
        name = work.drawn(number, whole)
        number += 1
        if name in done.seeds:
            continue
        report(name, work.run(name), done)
        if time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            print(f"{done.kills(whole)} of {target} kills, {len(done.seeds)} seeds, {len(done.lost)} lost", flush=True)


def report(name: str, outcome: Outcome, done: Done) -> None:
    done.add(name, outcome)
    if outcome.error:
        print(f"LOST {name} after {outcome.kills} kills: {outcome.error}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
