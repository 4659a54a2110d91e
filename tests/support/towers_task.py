"""Objects seen by three made-up sensors, a task that learns to compare and then to class them, and a model for it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mmpost.data.media.media import media
from mmpost.data.media.modalities import Modality, register_modality
from mmpost.data.sources.base import Indexed
from mmpost.edits.head import AddHead
from mmpost.edits.standardise import Standardise
from mmpost.models.embedding.model import write_model
from mmpost.models.embedding.spec import EmbeddingSpec
from mmpost.objectives.classify import Classify
from mmpost.objectives.contrastive import Contrastive
from mmpost.types import Bench, Context, Part, Sample, Split, Stage, Task, Transform

KINDS = ("wave", "strip", "row")
SHAPES = {"wave": (12, 4), "strip": (2, 40), "row": (5,)}
CLASSES = 4


def opened(file: Any, scale: float = 1.0) -> np.ndarray:
    return np.load(io.BytesIO(file.read()), allow_pickle=False) * scale


for name in KINDS:
    register_modality(Modality(name, opened, lambda file: {"numbers": opened(file).size}))


def described(**more: Any) -> EmbeddingSpec:
    """Small towers; `dropout` of all of them."""
    dropout = more.pop("dropout", 0.0)
    wave = {"name": "informer", "length": 12, "channels": 3, "constant": (2, 3), "dim": 8, "layers": 1, "heads": 2}
    towers = {
        "wave": {**wave, "hidden": 16, "dropout": dropout, **more.pop("wave", {})},
        "strip": {"name": "galspecnet", "points": 40, "inputs": 2, "channels": (4, 4), "dropout": dropout},
        "row": {"name": "mlp", "numbers": 5, "hidden": 16, "dropout": dropout, "options": {"scale": 2.0}},
    }
    return EmbeddingSpec.model_validate({"dim": 8, "encoders": towers, **more})


def write(folder: Path | str, seed: int = 0, **more: Any) -> str:
    write_model(folder, described(**more), seed)
    return str(folder)


class Objects(Indexed):
    """Each of a class that every sensor sees behind noise; every seventh part is missing."""

    name = "objects"

    def __init__(self, n: int, seed: int = 0) -> None:
        self.n, self.seed = n, seed

    def __len__(self) -> int:
        return self.n

    def sample(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, index])
        label = index % CLASSES
        parts = []
        for i, kind in enumerate(KINDS):
            if (index + 3 * i) % 7 == 0:
                continue
            centre = np.random.default_rng([99, i, label]).normal(size=SHAPES[kind])
            value = (centre + 0.3 * rng.normal(size=SHAPES[kind])).astype(np.float32)
            if kind == "wave":
                value[:, 2], value[:, -1] = value[0, 2], np.arange(12) < 9 + label % 2
            parts.append(Part(kind, media(value, kind)))
        return Sample(f"object-{self.seed}-{index}", tuple(parts), truth=label, columns={"label": float(label)})


class Guess(Transform):
    """Writes the most likely class, and the similarity of an object's own kinds, as columns."""

    makes = ("guess",)

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        from dataclasses import replace

        guesses = context.class_logits(samples).argmax(1).tolist()
        return [replace(s, columns={**s.columns, "guess": float(g)}) for s, g in zip(samples, guesses, strict=True)]


def accuracy(samples: Sequence[Sample]) -> dict[str, float]:
    return {"accuracy": float(np.mean([s.columns["guess"] == s.truth for s in samples]))}


class Towers(Task):
    """Compare, then class."""

    prompts: int = 16
    """Objects of a step."""
    two_stages: bool = True
    """Class them too."""
    heads: Literal[1, 2] = 1
    """With 2, the second stage has a head of its own."""

    def stages(self) -> Iterator[Stage]:
        source = Objects(64)
        fit = (Standardise(source), AddHead(CLASSES, KINDS, "average"))
        rates = {"lr": 1e-2}
        yield Stage("compare", source, Contrastive(modalities=KINDS), self.prompts, edits=fit, optim=rates)
        if self.two_stages:
            own = (AddHead(CLASSES, KINDS, "concat"),) if self.heads == 2 else ()
            yield Stage("class", source, Classify(modalities=KINDS), self.prompts, optim=rates, edits=own)

    def benches(self, split: Split) -> list[Bench]:
        return [Bench("objects", Objects(32, 1), (Guess(),), accuracy)]


def flat(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])
