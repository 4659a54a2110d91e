"""Seeded fuzzing of what users hand in: rows, arguments, YAML, media, replies, runs and whole commands.

    python scripts/fuzz.py [--minutes 30] [--seed 0] [--targets rows words yaml media replies runs commands]
                           [--out fuzz-finds]

Each case is a valid input with a few random changes. It must be accepted or refused with one of mmpost's own errors
(`mmpost.errors`) of at most 40 lines; anything else is a find: another exception, a message longer than a screen, a
call that takes more than `--limit` seconds, and a silent loss: a valid row beside a damaged one that is not read, a
configuration that differs once it was written and read again, a reward that is not finite, a file of a run that a
command changed although it had no reason to, a step on record that is gone, other weights than those of the undamaged
run after a damage that a resume accepted, unless it gave other settings or another state. Finds are written to `--out`,
a folder per kind of find, with the input and the traceback. Every case depends on (seed, target, number) alone: `--only
TARGET:NUMBER` repeats one.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import multiprocessing
import random
import resource
import shutil
import time
import traceback
from collections import Counter
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from fuzz_parts import commands, inputs

from mmpost.core.display import fitted, visible
from mmpost.errors import MmpostError

BATCH = {"runs": 10, "commands": 20}
"""Cases per process, 200 where nothing else is said: a fork per case would take longer than most cases."""
FINE = ("accepted", "refused")
"""Outcomes that are no finds."""
MEMORY = 12 << 30
"""Bytes that a process may allocate."""

CASES = {
    "rows": inputs.rows_case,
    "words": inputs.words_case,
    "yaml": inputs.yaml_case,
    "media": inputs.media_case,
    "replies": inputs.replies_case,
    "runs": commands.runs_case,
    "commands": commands.commands_case,
}


def run_case(target: str, seed: int, number: int, folder: Path) -> tuple[str, str]:
    """(outcome, detail) of one case: "accepted", "refused", or the name of what went wrong with the traceback."""
    rng = random.Random(f"{seed} {target} {number}")
    try:
        CASES[target](rng, folder)()
    except MmpostError as e:
        shown = visible(fitted(str(e)))  # as the command line prints it
        if len(shown.splitlines()) > 40 or len(shown) > 20_000:
            return "long message", shown[:20_000]
        return "refused", ""
    except Exception as e:  # noqa: BLE001 - what this script looks for
        last = traceback.extract_tb(e.__traceback__)[-1]
        return f"{type(e).__name__} in {Path(last.filename).name}:{last.name}", traceback.format_exc()
    return "accepted", ""


def keep(target: str, seed: int, number: int, outcome: str, detail: str, folder: Path) -> None:
    """Copy the input of the first find of its kind, `folder` = OUT/current/TARGET, with how to repeat it."""
    name = hashlib.sha256(f"{target} {outcome}".encode()).hexdigest()[:8]
    place = folder.parents[1] / f"{target}-{name}"
    if place.exists():
        return
    shutil.copytree(folder, place, symlinks=True)
    (place / "find.txt").write_text(f"--seed {seed} --only {target}:{number}\n{outcome}\n{detail}", errors="replace")
    print(f"find: {target}:{number} {outcome} -> {place}", flush=True)


def _work(target: str, seed: int, first: int, folder: Path, results: Any) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    for number in range(first, first + BATCH.get(target, 200)):
        results.send((number, None))
        with redirect_stderr(io.StringIO()):
            outcome, detail = run_case(target, seed, number, folder)
        if outcome not in FINE:
            keep(target, seed, number, outcome, detail, folder)
        results.send((number, outcome))
    results.send(None)


def run_batch(target: str, seed: int, first: int, folder: Path, limit: float, counts: Counter[str]) -> None:
    """Some cases in a process of their own; a case that hangs or kills it is a find, and ends the batch."""
    folder.mkdir(parents=True, exist_ok=True)
    reader, writer = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_work, args=(target, seed, first, folder, writer))
    process.start()
    writer.close()
    number = first
    while True:
        try:
            message = reader.recv() if reader.poll(limit) else (number, "hang")
        except EOFError:
            message = (number, "the process died")
        if message is None:
            break
        number, outcome = message
        if outcome is None:
            continue
        counts[f"{'' if outcome in FINE else 'FIND '}{target}: {outcome}"] += 1
        if outcome in ("hang", "the process died"):
            process.kill()
            process.join()
            keep(target, seed, number, outcome, "", folder)
            return
    process.join()


def main() -> None:
    """Run until the time is up; print what happened to how many cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--limit", type=float, default=10.0)
    parser.add_argument("--out", default="fuzz-finds")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    current = Path(arguments.out).absolute() / "current"
    torch.set_num_threads(1)
    if {"runs", "commands", arguments.only.partition(":")[0]} & {*arguments.targets}:
        shutil.rmtree(current / "template", ignore_errors=True)
        commands.write_run(current / "template")
    if arguments.only:
        target, _, number = arguments.only.partition(":")
        folder = current / target
        folder.mkdir(parents=True, exist_ok=True)
        print(*run_case(target, arguments.seed, int(number), folder), sep="\n")
        return
    counts: Counter[str] = Counter()
    end = time.monotonic() + 60 * arguments.minutes
    first = dict.fromkeys(arguments.targets, 0)
    while time.monotonic() < end:
        for target in arguments.targets:
            run_batch(target, arguments.seed, first[target], current / target, arguments.limit, counts)
            first[target] += BATCH.get(target, 200)
    for name, count in sorted(counts.items()):
        print(f"{count:8d}  {name}")
    print(f"{sum(counts.values()):8d}  cases")


if __name__ == "__main__":
    main()
