"""Synthetic objects with three modalities, a task with a contrastive and a classification stage, and a model for it."""

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
from mmpost.edits.standardize import Standardize
from mmpost.models.embedding.model import write_model
from mmpost.models.embedding.spec import EmbeddingSpec
from mmpost.objectives.classify import Classify
from mmpost.objectives.contrastive import Contrastive
from mmpost.types import Bench, Context, Part, Sample, Split, Stage, Task, Transform

MODALITIES = ("wave", "strip", "row")
SHAPES = {"wave": (12, 4), "strip": (2, 40), "row": (5,)}
CLASSES = 4


def opened(file: Any, scale: float = 1.0) -> np.ndarray:
    return np.load(io.BytesIO(file.read()), allow_pickle=False) * scale


for name in MODALITIES:
    register_modality(Modality(name, opened, lambda file: {"numbers": opened(file).size}))


def embedding_spec(**overrides: Any) -> EmbeddingSpec:
    """A spec with small encoders; `dropout` applies to all of them."""
    dropout = overrides.pop("dropout", 0.0)
    wave = {"name": "informer", "length": 12, "channels": 3, "constant": (2, 3), "dim": 8, "layers": 1, "heads": 2}
    encoders = {
        "wave": {**wave, "hidden": 16, "dropout": dropout, **overrides.pop("wave", {})},
        "strip": {"name": "galspecnet", "points": 40, "inputs": 2, "channels": (4, 4), "dropout": dropout},
        "row": {"name": "mlp", "numbers": 5, "hidden": 16, "dropout": dropout, "options": {"scale": 2.0}},
    }
    return EmbeddingSpec.model_validate({"dim": 8, "encoders": encoders, **overrides})


def write(folder: Path | str, seed: int = 0, **overrides: Any) -> str:
    write_model(folder, embedding_spec(**overrides), seed)
    return str(folder)


class Objects(Indexed):
    """Objects of CLASSES classes: noisy values in each modality; every seventh part is missing."""

    name = "objects"

    def __init__(self, n: int, seed: int = 0) -> None:
        self.n, self.seed = n, seed

    def __len__(self) -> int:
        return self.n

    def sample(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, index])
        label = index % CLASSES
        parts = []
        for i, modality in enumerate(MODALITIES):
            if (index + 3 * i) % 7 == 0:
                continue
            centre = np.random.default_rng([99, i, label]).normal(size=SHAPES[modality])
            value = (centre + 0.3 * rng.normal(size=SHAPES[modality])).astype(np.float32)
            if modality == "wave":
                value[:, 2], value[:, -1] = value[0, 2], np.arange(12) < 9 + label % 2
            parts.append(Part(modality, media(value, modality)))
        return Sample(f"object-{self.seed}-{index}", tuple(parts), truth=label, columns={"label": float(label)})


class Guess(Transform):
    """Writes the most likely class as a column."""

    makes = ("guess",)

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        from dataclasses import replace

        guesses = context.class_logits(samples).argmax(1).tolist()
        return [replace(s, columns={**s.columns, "guess": float(g)}) for s, g in zip(samples, guesses, strict=True)]


def accuracy(samples: Sequence[Sample]) -> dict[str, float]:
    return {"accuracy": float(np.mean([s.columns["guess"] == s.truth for s in samples]))}


class Towers(Task):
    """A contrastive stage, then classification."""

    prompts: int = 16
    """Objects per step."""
    two_stages: bool = True
    """Add the classification stage."""
    heads: Literal[1, 2] = 1
    """With 2, the second stage adds its own head."""

    def stages(self) -> Iterator[Stage]:
        source = Objects(64)
        first_edits = (Standardize(source), AddHead(CLASSES, MODALITIES, "average"))
        optim = {"lr": 1e-2}
        yield Stage("compare", source, Contrastive(modalities=MODALITIES), self.prompts, edits=first_edits, optim=optim)
        if self.two_stages:
            edits = (AddHead(CLASSES, MODALITIES, "concat"),) if self.heads == 2 else ()
            yield Stage("class", source, Classify(modalities=MODALITIES), self.prompts, optim=optim, edits=edits)

    def benches(self, split: Split) -> list[Bench]:
        return [Bench("objects", Objects(32, 1), (Guess(),), accuracy)]


def flat(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])
