"""Seeded fuzzing of what users hand in: rows, arguments, YAML, media, replies, runs and whole commands.

    python scripts/fuzz.py [--minutes 30] [--seed 0] [--targets rows words yaml media replies runs commands]
                           [--out fuzz-finds]

Each case is a valid input with a few random changes. It must be accepted or refused with one of mmpost's own errors
(`mmpost.errors`) of at most 40 lines; anything else is a find: another exception, a message longer than a screen, a
call that takes more than `--limit` seconds, and a silent loss: a valid row beside a damaged one that is not read, a
configuration that differs once it was written and read again, a reward that is not finite, a file of a run that a
command changed although it had no reason to, a step on record that is gone. Finds are written to `--out`, a folder per
kind of find, with the input and the traceback. Every case depends on (seed, target, number) alone: `--only
TARGET:NUMBER` repeats one.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import time
import traceback
import wave
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mmpost import cli
from mmpost.config import parsing, run_config
from mmpost.core import run_files
from mmpost.core.display import fitted, visible
from mmpost.data.media.media import media
from mmpost.data.readers.dataset import open_dataset
from mmpost.errors import MmpostError
from mmpost.types import Part, Reply, Sample

MOST = 100_000
"""Characters of a text."""
BATCH = {"runs": 10, "commands": 20}
"""Cases per process, 200 where nothing else is said: a fork per case would take longer than most cases."""
FINE = ("accepted", "refused")
"""Outcomes that are no finds."""
MEMORY = 12 << 30
"""Bytes that a process may allocate."""

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1e308, 10**400, float("nan"), float("inf"), "", " ", "\x00", "\u202e", "\ud800", "é" * 3000),
    *(
        [],
        {},
        [[]],
        [None],
        {"": 0},
        {"bytes": "x"},
        "data:image/png;base64,AAAA",
        "file:///dev/zero",
        "../../etc/passwd",
    ),
    *("<image>", "<image><image>", "<video>", "https://example.invalid/a.png", "a" * 100_000, [[[[[[[[1]]]]]]]]),
)
"""Values that take the place of others."""

ROW: dict[str, Any] = {
    "id": "7",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<image>What is it?"},
        {"role": "assistant", "content": [{"type": "text", "text": "A cup."}]},
    ],
    "images": ["a.png"],
    "solution": [{"bbox_2d": [1, 2, 3, 4], "point_2d": [2, 3]}],
    "rejected": "A bowl.",
    "label": 1,
}
ARGUMENTS = (
    *("task=visurf", "model=random-tiny", "steps=3", "optim.lr=1e-4", "optim={lr: 1e-4, betas: [0.9, 0.99]}"),
    *("task.sampling.max_tokens=4", "data.train=[a.jsonl*0.5, b.jsonl]", "data.split=[0.8, 0.1, 0.1]", "eval.every=2"),
    *("stages.rl.optim.lr=1e-3", "rewards.mine=my.py:reward*0.5", "model.lora.rank=4", "model.freeze=[vision]"),
    *("checkpoint.every=1", "compute.reuse=off", "seed=1", "log.samples_every=2", "out=runs/x", "config=a.yaml"),
)


def mutate_value(value: Any, rng: random.Random) -> Any:
    """The JSON value with one random part replaced, removed, repeated or nested."""
    if rng.random() < 0.25 or not isinstance(value, dict | list) or not value:
        kind = rng.randrange(4)
        if kind == 0:
            return [value] * rng.choice((1, 2, 50))
        if kind == 1 and isinstance(value, str):
            return mutate_text(value, rng)
        return rng.choice(ODD)
    if isinstance(value, list):
        i = rng.randrange(len(value))
        return value[:i] + ([mutate_value(value[i], rng)] if rng.random() < 0.8 else []) + value[i + 1 :]
    key = rng.choice(list(value))
    kind = rng.randrange(4)
    rest = {k: v for k, v in value.items() if k != key}
    if kind == 0:
        return rest
    if kind == 1:
        return {**rest, mutate_text(key, rng): value[key]}
    return {**value, key: mutate_value(value[key], rng)}


def mutate_text(text: str, rng: random.Random) -> str:
    """The text with a random piece removed, repeated, replaced or inserted."""
    a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
    inserted = rng.choice(
        ("", " ", "\n", ":", "=", "{", "[", "]", "&a ", "*a", "!!", "'", '"', "\x00", "\u202e", "9" * 400, "-")
    )
    mutated = text[:a] + rng.choice((inserted, text[a:b] * rng.choice((0, 2, 100)), inserted * 2000)) + text[b:]
    return mutated[:MOST]


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """The bytes with some flipped, cut off, or a piece repeated."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        out[rng.randrange(min(len(out), rng.choice((32, 200, len(out)))))] = rng.randrange(256)
    if rng.random() < 0.3:
        out = out[: rng.randrange(len(out))]
    return bytes(out)


def rows_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    row: Any = ROW
    for _ in range(rng.choice((1, 1, 2, 4))):
        row = mutate_value(row, rng)
    line = json.dumps(row)
    if rng.random() < 0.2:
        line = mutate_text(line, rng)
    (folder / "rows.jsonl").write_text(f"{line}\n{json.dumps(ROW)}\n", encoding="utf-8", errors="surrogatepass")

    def read() -> object:
        source = open_dataset(str(folder / "rows.jsonl"))
        refused = None
        for i in range(len(source) - 1):
            try:
                read_sample(source[i])
            except MmpostError as e:
                refused = e
        try:  # what is wrong with one row may not end the reading of another
            read_sample(source[len(source) - 1])
        except MmpostError as e:
            raise SilentLoss(f"the valid row is refused: {e}") from e
        if refused is not None:
            raise refused
        return source

    return read


def read_sample(sample: Sample) -> None:
    """Open the media of a sample that exist."""
    for part in sample.prompt:
        if part.modality != "text" and "a.png" not in str(part.value):
            part.value.header()


def require(what: str, holds: bool) -> None:
    """Raise SilentLoss where something went wrong without an error."""
    if not holds:
        raise SilentLoss(what)


class SilentLoss(Exception):
    """An accepted input of which something got lost."""


def words_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    chosen = [
        mutate_text(word, rng) if rng.random() < 0.5 else word for word in rng.sample(ARGUMENTS, rng.randrange(1, 6))
    ]
    (folder / "words.txt").write_text("\n".join(chosen), encoding="utf-8", errors="surrogatepass")
    return lambda: load_twice([word for word in chosen if not word.startswith(("config=", "resume="))])


def load_twice(words: list[str]) -> object:
    """The configuration of these arguments, which is the same once it was written as a run does and read again."""
    config, _ = run_config.load(words)
    again = run_config.load([parsing.parse_yaml(parsing.dump(config.model_dump(mode="json")), "again")])[0]
    require("the configuration differs once it was written", again == config)
    return config


def yaml_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    text = parsing.dump(
        {"task": {"name": "visurf", "sampling": {"max_tokens": 4}}, "optim": {"lr": 1e-4, "betas": [0.9, 0.99]}}
    )
    for _ in range(rng.choice((1, 2, 5))):
        text = mutate_text(text, rng)
    file = folder / "a.yaml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    return lambda: load_twice([f"config={file}"])


def _media_files() -> list[tuple[str, bytes]]:
    image = Image.fromarray(np.arange(48 * 40 * 3, dtype=np.uint8).reshape(48, 40, 3))
    files = []
    for format in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        buffer = io.BytesIO()
        image.save(buffer, format)
        files.append(("image", buffer.getvalue()))
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(np.zeros(800, np.int16).tobytes())
    return [*files, ("audio", buffer.getvalue())]


MEDIA = _media_files()


def media_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    modality, data = rng.choice(MEDIA)
    data = mutate_bytes(data, rng)
    (folder / f"{modality}.bin").write_bytes(data)

    def read() -> object:
        medium = media(data, modality)
        return medium.header(), medium.open()

    return read


def replies_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    import reward_times

    text = rng.choice(
        (
            '<think>so</think><answer>[{"bbox_2d": [1, 2, 3, 4], "point_2d": [2, 3]}]</answer>',
            '<think>so</think><answer>{"answer": "B", "start_time": "1.5", "end_time": "3"}</answer>',
            "<answer>change_size(1, 'small')</answer>",
            "<summary>a</summary><caption>b</caption><think>c</think><answer>7</answer>",
        )
    )
    for _ in range(rng.choice((1, 2, 5))):
        text = mutate_text(text, rng)
    (folder / "reply.txt").write_text(text, encoding="utf-8", errors="surrogatepass")
    slow = ("expression", "discrete", "choice.released")
    functions = {name: f for name, f in reward_times.rewards().items() if not name.startswith(slow)}
    samples = reward_times.samples()

    def score() -> object:
        reply = Reply((Part("text", text),), "policy")
        for name, function in functions.items():
            for sample in _supported(name, function, samples):
                value = function(sample, reply)
                assert value is None or math.isfinite(value), f"{name} scores {value}"
        return None

    return score


_SUPPORTED: dict[str, list[Sample]] = {}


def _supported(name: str, function: Callable[..., Any], samples: list[Sample]) -> list[Sample]:
    import reward_times

    if name not in _SUPPORTED:
        _SUPPORTED[name] = [sample for sample in samples if reward_times._supported(function, sample)]
    return _SUPPORTED[name]


QUICK = (
    *("task=visurf", "model=random-tiny", "task.scenes=4", "task.bench_scenes=2", "task.prompts_per_step=1"),
    *("task.num_generations=2", "task.sampling.max_tokens=4", "log.tensorboard=false", "log.progress=false"),
    *("eval.before=false", "eval.after=false"),
)
"""Settings of a run that takes less than a second."""


def write_run(folder: Path) -> None:
    """A finished run of two steps, for `runs` and `commands`; in a process of its own, so that forks stay possible."""
    folder.mkdir(parents=True)
    train = [sys.executable, "-W", "ignore", "-m", "mmpost.cli", "train", *QUICK, "steps=2"]
    checkpoints = ("checkpoint.every=1", "checkpoint.keep=9")
    subprocess.run([*train, *checkpoints, f"out={folder / 'run'}"], check=True, capture_output=True)
    (folder / "rows.jsonl").write_text('{"question": "Where is 3?", "id": 1}\n{"question": "Where is 4?", "id": 2}\n')
    (folder / "answers.jsonl").write_text('{"id": 1, "response": "[]"}\n')


def damage(file: Path, rng: random.Random) -> None:
    """Change, cut, empty, delete or replace a file."""
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


def runs_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    template = folder.parent / "template"
    shutil.copytree(template / "run", run, symlinks=True)
    shutil.copy(template / "rows.jsonl", folder)
    files = [f for f in sorted(run.rglob("*")) if f.is_file() and "step-1" not in f.parts and f.name != run_files.LOCK]
    damaged = {rng.choice(files) for _ in range(rng.choice((1, 1, 2)))}
    for file in sorted(damaged):
        damage(file, rng)
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
            _command(command)
        finally:
            for file, content in first.items():
                require(f"{file.name} of an older checkpoint changed", file.exists() and file.read_bytes() == content)
            if measured is not None:
                require("steps on record are gone", _lines(run)[: len(measured)] == measured)
        if command[0] == "train":
            require("step 3 is not on record", [row["step"] for row in run_files.read_metrics(run)][-1:] == [3])
            require("no summary", run_files.read_summary(run)["status"] == "done")
        return None

    return go


def _lines(run: Path) -> list[str]:
    """The recorded steps of a run, as text."""
    return (run / "metrics.jsonl").read_text().splitlines()[:2]


def _command(arguments: list[str]) -> int:
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
    if name in USE_MODEL and not any(word.startswith("model") for word in words):
        words.append("model=random-tiny")  # the task's own base would be trained for minutes
    (folder / "command.txt").write_text("\n".join([name, *words]), encoding="utf-8", errors="surrogatepass")

    def go() -> object:
        os.chdir(folder)
        return _command([name, *words])

    return go


CASES = {
    "rows": rows_case,
    "words": words_case,
    "yaml": yaml_case,
    "media": media_case,
    "replies": replies_case,
    "runs": runs_case,
    "commands": commands_case,
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
        write_run(current / "template")
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
