"""Cases of what is read: rows, arguments, YAML, media and replies."""

from __future__ import annotations

import io
import json
import math
import random
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fuzz_parts.losses import SilentLoss, require
from fuzz_parts.mutations import mutate_bytes, mutate_text, mutate_value
from mmpost.config import parsing, run_config
from mmpost.data.media.media import media
from mmpost.data.readers.dataset import open_dataset
from mmpost.errors import MmpostError
from mmpost.types import Part, Reply, Sample

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
