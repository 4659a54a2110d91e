"""Any encoder of transformers for images, text or sound, by name, folder or configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoProcessor

from mmpost.errors import ConfigError
from mmpost.models.loading import quiet
from mmpost.models.towers import Encoder
from mmpost.settings import Settings


class HubFields(Settings):
    """A model of transformers that is there already."""

    source: str = ""
    """Folder or hub id, with its processor; empty once it is part of a saved model."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """Those of the source, or fresh ones for its configuration."""
    pool: Literal["auto", "mean", "first"] = "auto"
    """Of the last hidden states; auto: the family's own features or pooled output where it has one, else the mean."""
    tokens: int = 128
    """Most tokens of a text."""


class Hub(Encoder):
    """Media through the source's own processor and module, to its features (CLIP), its pooled output, or a mean."""

    Fields = HubFields

    def __init__(self, fields: HubFields, kind: str, folder: Path | None = None) -> None:
        super().__init__(fields, kind, folder)
        self.fields, self.kind = fields, kind
        place = str(folder) if folder is not None else fields.source
        try:
            with quiet():
                self.processor: Any = AutoProcessor.from_pretrained(place)
                if folder is None and fields.weights == "pretrained":
                    self.model: Any = AutoModel.from_pretrained(place, dtype=torch.float32)
                else:
                    self.model = AutoModel.from_config(AutoConfig.from_pretrained(place))
        except (OSError, ValueError, KeyError, ImportError) as e:
            raise ConfigError(
                f"tower of {kind}: wanted a model of transformers with its processor, found {place!r}, which it cannot "
                f"load: {e}"
            ) from e
        if kind not in _EXAMPLES:
            raise ConfigError(f"tower of {kind}: a model of transformers takes {', '.join(_EXAMPLES)}; choose another")
        self.model.eval()
        with torch.no_grad():
            self.size = self(**self.collate([_EXAMPLES[kind]()])).shape[-1]
        self.cost = 256

    def collate(self, values: Sequence[Any]) -> dict[str, Tensor]:
        if self.kind == "text":
            tokenizer = getattr(self.processor, "tokenizer", self.processor)
            cut = {"padding": True, "truncation": True, "max_length": self.fields.tokens}
            made = tokenizer(list(values), **cut, return_tensors="pt")
        elif self.kind == "image":
            made = getattr(self.processor, "image_processor", self.processor)(list(values), return_tensors="pt")
        else:
            reader = getattr(self.processor, "feature_extractor", self.processor)
            waves = [np.asarray(getattr(v, "samples", v), np.float32) for v in values]
            made = reader(waves, sampling_rate=reader.sampling_rate, return_tensors="pt", padding=True)
        return {name: value for name, value in made.items() if isinstance(value, Tensor)}

    @property
    def options(self) -> dict[str, Any]:
        if self.kind != "audio":
            return {}
        return {"rate": getattr(self.processor, "feature_extractor", self.processor).sampling_rate}

    def forward(self, **inputs: Tensor) -> Float[Tensor, "sample feature"]:
        own = getattr(self.model, f"get_{self.kind}_features", None)
        if own is not None and self.fields.pool == "auto":
            found = own(**inputs)
            return found if isinstance(found, Tensor) else found.pooler_output
        found = self.model(**inputs)
        pooled = getattr(found, "pooler_output", None)
        if pooled is not None and self.fields.pool == "auto":
            return pooled.flatten(1)
        states = found.last_hidden_state
        if self.fields.pool == "first":
            return states[:, 0]
        mask = inputs.get("attention_mask")
        if mask is None or mask.shape != states.shape[:2]:
            return states.mean(1) if states.dim() == 3 else states.flatten(2).mean(-1)
        weight = mask[..., None].to(states)
        return (states * weight).sum(1) / weight.sum(1)

    def save(self, folder: Path) -> Settings:
        with quiet():
            self.model.config.save_pretrained(folder)
            self.processor.save_pretrained(folder)
        return self.fields.model_copy(update={"source": "", "weights": "random"})


_EXAMPLES: dict[str, Any] = {
    "image": lambda: np.zeros((64, 64, 3), np.uint8),
    "text": lambda: "a",
    "audio": lambda: np.zeros(16000, np.float32),
}
"""One value of each kind that a processor of transformers reads; it tells the size of the vector."""
