"""Cases of whole commands: on damaged runs, and with damaged arguments."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from fuzz_parts.losses import require
from fuzz_parts.mutations import mutate_bytes, mutate_text, mutate_value
from mmpost import cli
from mmpost.core import run_files
from mmpost.errors import MmpostError

QUICK = (
    *("task=visurf", "model=random-tiny", "task.scenes=4", "task.bench_scenes=2", "task.prompts_per_step=1"),
    *("task.num_generations=2", "task.sampling.max_tokens=4", "log.tensorboard=false", "log.progress=false"),
    *("eval.before=false", "eval.after=false"),
)
"""Settings of a run that takes less than a second."""


def write_run(folder: Path) -> None:
    """What `runs` and `commands` start from: a finished run of two steps, and a copy of it that went on to the third.

    In processes of their own, so that this one can still fork.
    """
    folder.mkdir(parents=True)
    run = folder / "run"
    _train(*QUICK, "steps=2", "checkpoint.every=1", "checkpoint.keep=9", f"out={run}")
    shutil.copytree(run, folder / "resumed", symlinks=True)
    _train(f"resume={folder / 'resumed'}", "steps=3")
    (folder / "rows.jsonl").write_text('{"question": "Where is 3?", "id": 1}\n{"question": "Where is 4?", "id": 2}\n')
    (folder / "answers.jsonl").write_text('{"id": 1, "response": "[]"}\n')


def _train(*arguments: str) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "mmpost.cli", "train", *arguments]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def damage(file: Path, rng: random.Random) -> bool:
    """Change, cut, empty, delete or replace a file; whether it still has content, which may be a valid one."""
    kind = rng.randrange(8)
    data = file.read_bytes()
    if kind <= 3 and file.suffix in (".json", ".jsonl"):
        lines = data.decode().splitlines() if file.suffix == ".jsonl" else [data.decode()]
        i = rng.randrange(len(lines))
        lines[i] = json.dumps(mutate_value(json.loads(lines[i]), rng))
        file.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogatepass")
    elif kind <= 3 and file.suffix in (".yaml", ".jinja"):
        file.write_text(mutate_text(data.decode(), rng), encoding="utf-8", errors="surrogatepass")
    elif kind <= 4:
        file.write_bytes(mutate_bytes(data, rng))
    else:
        file.unlink()
        if kind == 5:
            file.touch()
        elif kind == 6:
            file.mkdir()
        elif rng.random() < 0.5:
            file.symlink_to(rng.choice(("/dev/zero", file.name, "nowhere", "..")))
    return kind <= 4


def runs_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    template = folder.parent / "template"
    resumed = template / "resumed"
    shutil.copytree(template / "run", run, symlinks=True)
    shutil.copy(template / "rows.jsonl", folder)
    files = [f for f in sorted(run.rglob("*")) if f.is_file() and "step-1" not in f.parts and f.name != run_files.LOCK]
    damaged = {rng.choice(files) for _ in range(rng.choice((1, 1, 2)))}
    other = {file for file in sorted(damaged) if damage(file, rng)}
    same = not any(file.name == "config.yaml" or "checkpoints" in file.parts for file in other)
    command = rng.choice(
        (
            *(["train", f"resume={run}", "steps=3"], ["train", f"resume={run / 'checkpoints' / 'last'}", "steps=3"]),
            *(
                ["eval", *QUICK[:1], f"model={run}", *QUICK[2:4]],
                ["export", f"model={run}", f"out={folder / 'export'}"],
            ),
            ["predict", f"model={run}", f"data.test={folder / 'rows.jsonl'}", f"out={folder / 'replies.jsonl'}"],
            *(["show", f"run={run}", "step=2"], ["report", str(run), f"out={folder / 'page.html'}"]),
        )
    )
    for name in ("export", "replies.jsonl", "page.html"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).unlink(missing_ok=True)
    (folder / "command.txt").write_text(f"{' '.join(command)}\ndamaged: {', '.join(map(str, sorted(damaged)))}\n")
    first = {f: f.read_bytes() for f in sorted((run / "checkpoints" / "step-1").rglob("*")) if f.is_file()}
    measured = None if run / "metrics.jsonl" in damaged else _lines(run)

    def go() -> object:
        try:
            run_command(command)
        finally:
            for file, content in first.items():
                require(f"{file.name} of an older checkpoint changed", file.exists() and file.read_bytes() == content)
            if measured is not None:
                require("steps on record are gone", _lines(run)[: len(measured)] == measured)
        if command[0] == "train":
            require("step 3 is not on record", [row["step"] for row in run_files.read_metrics(run)][-1:] == [3])
            require("no summary", run_files.read_summary(run)["status"] == "done")
            require("other weights than of the undamaged run", not same or _weights(run) == _weights(resumed))
        return None

    return go


def _lines(run: Path) -> list[str]:
    """The recorded steps of a run, as text."""
    return (run / "metrics.jsonl").read_text().splitlines()[:2]


def _weights(run: Path) -> bytes:
    """The weights after the third step."""
    return (run / "checkpoints" / "step-3" / "model.safetensors").read_bytes()


def run_command(arguments: list[str]) -> int:
    """The exit code of a command. Raises MmpostError with what it printed where it is 1."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        try:
            code = cli.main(arguments)
        except SystemExit as e:
            code = int(e.code or 0)  # argparse refuses words
    if code:
        require(f"exit code {code} without a message", bool(printed.getvalue().strip()))
        raise MmpostError(printed.getvalue()[-2000:])
    return code


COMMANDS: dict[str, tuple[str, ...]] = {
    "check": (*QUICK[:7], "model.freeze=[vision]", "optim.lr=1e-4", "data.split=[0.8, 0.1, 0.1]", "seed=1"),
    "show": (*QUICK[:4], "n=2", "split=test"),
    "score": ("task=visurf", "answers=answers.jsonl", "answers.key=response", *QUICK[2:4]),
    "predict": (*QUICK[:2], "data.test=rows.jsonl", "out=replies.jsonl", "task.sampling.max_tokens=4", "seed=2"),
    "select": (*QUICK[:7], "select.by=rif", "select.max_samples=2", "out=selected"),
    "list": ("visurf",),
    "report": ("run", "out=page.html"),
    "export": ("model=run", "out=exported", "dtype=bf16"),
    "new-task": ("mine", "out=written"),
    "eval": (*QUICK[:4], "eval.max_samples=1", "task.sampling.max_tokens=4"),
}
"""Arguments of commands that end within seconds."""
USE_MODEL = ("check", "show", "predict", "select", "eval")


def commands_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "template", folder, symlinks=True)
    name = rng.choice(sorted(COMMANDS))
    words = list(COMMANDS[name])
    if name != "list" and rng.random() < 0.3:
        words.pop(rng.randrange(len(words)))
    if rng.random() < 0.2:
        words.append(rng.choice(rng.choice(sorted(COMMANDS.values()))))
    i = rng.randrange(len(words)) if words else 0
    words[i : i + 1] = [mutate_text(word, rng) for word in words[i : i + 1]]
    words = [word.replace("\x00", "") for word in words]  # which no command line can hold
    # A base would be trained for minutes, also the task's own.
    words = ["model=random-tiny" if re.fullmatch(r"model(\.name)?=tiny[-\w]*", word) else word for word in words]
    if name in USE_MODEL and not any(word.startswith("model") for word in words):
        words.append("model=random-tiny")
    (folder / "command.txt").write_text("\n".join([name, *words]), encoding="utf-8", errors="surrogatepass")

    def go() -> object:
        os.chdir(folder)
        return run_command([name, *words])

    return go
