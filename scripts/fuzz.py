"""Seeded fuzzing of what users hand in: rows, arguments, YAML, media and replies.

    python scripts/fuzz.py [--minutes 30] [--seed 0] [--targets rows words yaml media replies] [--out fuzz-finds]

Each case is a valid input with a few random changes. It must be accepted or refused with one of mmpost's own errors
(`mmpost.errors`) of at most 40 lines; anything else is a find: another exception, a message longer than a screen, a
call that takes more than `--limit` seconds. Finds are written to `--out`, a folder per kind of find, with the input and
the traceback. Every case depends on (seed, target, number) alone: `--only TARGET:NUMBER` repeats one.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import multiprocessing
import random
import time
import traceback
import wave
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmpost.config import parsing, run_config
from mmpost.core.display import fitted, visible
from mmpost.data.media.media import media
from mmpost.data.readers.dataset import open_dataset
from mmpost.errors import MmpostError
from mmpost.types import Part, Reply, Sample

MOST = 100_000
"""Characters of a text."""
BATCH = 200
"""Cases per process: a fork per case would take longer than the case."""

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
        for i in range(len(source)):
            sample = source[i]
            for part in sample.prompt:
                if part.modality != "text":
                    part.value.header()
        return source

    return read


def words_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    chosen = [
        mutate_text(word, rng) if rng.random() < 0.5 else word for word in rng.sample(ARGUMENTS, rng.randrange(1, 6))
    ]
    (folder / "words.txt").write_text("\n".join(chosen), encoding="utf-8", errors="surrogatepass")
    return lambda: run_config.load([word for word in chosen if not word.startswith(("config=", "resume="))])


def yaml_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    text = parsing.dump(
        {"task": {"name": "visurf", "sampling": {"max_tokens": 4}}, "optim": {"lr": 1e-4, "betas": [0.9, 0.99]}}
    )
    for _ in range(rng.choice((1, 2, 5))):
        text = mutate_text(text, rng)
    file = folder / "a.yaml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    return lambda: run_config.load([f"config={file}"])


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


CASES = {"rows": rows_case, "words": words_case, "yaml": yaml_case, "media": media_case, "replies": replies_case}


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


def _work(target: str, seed: int, first: int, folder: Path, results: Any) -> None:
    for number in range(first, first + BATCH):
        results.send((number, None, ""))
        results.send((number, *run_case(target, seed, number, folder)))
    results.send(None)


def run_batch(target: str, seed: int, first: int, arguments: argparse.Namespace, counts: Counter[str]) -> None:
    """BATCH cases in a process of their own; a case that hangs or kills it is a find, and ends the batch."""
    folder = Path(arguments.out) / "current" / target
    folder.mkdir(parents=True, exist_ok=True)
    reader, writer = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_work, args=(target, seed, first, folder, writer))
    process.start()
    writer.close()
    number = first
    while True:
        try:
            message = reader.recv() if reader.poll(arguments.limit) else (number, "hang", "")
        except EOFError:
            message = (number, "the process died", "")
        if message is None:
            break
        number, outcome, detail = message
        if outcome is None:
            continue
        counts[f"{target}: {outcome}" if outcome in ("accepted", "refused") else f"FIND {target}: {outcome}"] += 1
        if outcome not in ("accepted", "refused"):
            name = hashlib.sha256(f"{target} {outcome}".encode()).hexdigest()[:8]
            place = Path(arguments.out) / f"{target}-{name}"
            if not place.exists():
                place.mkdir(parents=True)
                for file in folder.iterdir():
                    (place / file.name).write_bytes(file.read_bytes())
                (place / "find.txt").write_text(
                    f"--seed {seed} --only {target}:{number}\n{outcome}\n{detail}", errors="replace"
                )
                print(f"find: {target}:{number} {outcome} -> {place}", flush=True)
        if outcome in ("hang", "the process died"):
            break
    process.kill()
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
    if arguments.only:
        target, _, number = arguments.only.partition(":")
        folder = Path(arguments.out) / "current" / target
        folder.mkdir(parents=True, exist_ok=True)
        print(*run_case(target, arguments.seed, int(number), folder), sep="\n")
        return
    counts: Counter[str] = Counter()
    end, first = time.monotonic() + 60 * arguments.minutes, 0
    while time.monotonic() < end:
        for target in arguments.targets:
            run_batch(target, arguments.seed, first, arguments, counts)
        first += BATCH
    for name, count in sorted(counts.items()):
        print(f"{count:8d}  {name}")
    print(f"{sum(counts.values()):8d}  cases")


if __name__ == "__main__":
    main()
