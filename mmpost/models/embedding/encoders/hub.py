"""Any encoder of transformers for images, text or sound, by name, folder or configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoConfig, AutoFeatureExtractor, AutoImageProcessor, AutoModel, AutoTokenizer

from mmpost.config.settings import Settings
from mmpost.errors import ConfigError
from mmpost.models.embedding.encoders import Encoder
from mmpost.models.loading import quiet


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
        if kind not in _READERS:
            raise ConfigError(f"tower of {kind}: a model of transformers takes {', '.join(_READERS)}; choose another")
        reader, example = _READERS[kind]
        try:
            with quiet():
                self.reader: Any = reader.from_pretrained(place)
                if folder is None and fields.weights == "pretrained":
                    self.model: Any = AutoModel.from_pretrained(place, dtype=torch.float32)
                else:
                    self.model = AutoModel.from_config(AutoConfig.from_pretrained(place))
        except (OSError, ValueError, KeyError, ImportError) as e:
            raise ConfigError(
                f"tower of {kind}: wanted a model of transformers with its processor, found {place!r}, which it cannot "
                f"load: {e}"
            ) from e
        self.model.eval()
        with torch.no_grad():
            self.size = self(**self.collate([example()])).shape[-1]
        self.cost = 256

    def collate(self, values: Sequence[Any]) -> dict[str, Tensor]:
        if self.kind == "text":
            cut = {"padding": True, "truncation": True, "max_length": self.fields.tokens}
            made = self.reader(list(values), **cut, return_tensors="pt")
        elif self.kind == "image":
            made = self.reader(list(values), return_tensors="pt")
        else:
            waves = [np.asarray(getattr(v, "samples", v), np.float32) for v in values]
            how = {"sampling_rate": self.reader.sampling_rate, "return_tensors": "pt", "padding": True}
            made = self.reader(waves, **how)
            if made.get("input_values", torch.empty(0)).dim() == 2:
                # Waves: each normalised by itself, and then computed by itself (`forward`).
                alone = [self.reader([wave], **how)["input_values"][0] for wave in waves]
                sizes = torch.tensor([len(wave) for wave in alone])
                return {"input_values": torch.nn.utils.rnn.pad_sequence(alone, batch_first=True), "sizes": sizes}
        return {name: value for name, value in made.items() if isinstance(value, Tensor)}

    @property
    def options(self) -> dict[str, Any]:
        return {"rate": self.reader.sampling_rate} if self.kind == "audio" else {}

    def forward(self, **inputs: Tensor) -> Float[Tensor, "sample feature"]:
        if "sizes" in inputs:
            # Convolutions and group norms over a wave would see the silence that fills it up.
            sizes = inputs["sizes"].tolist()
            waves = zip(inputs["input_values"], sizes, strict=True)
            return torch.cat([self._vectors(input_values=wave[None, :size]) for wave, size in waves])
        return self._vectors(**inputs)

    def _vectors(self, **inputs: Tensor) -> Float[Tensor, "sample feature"]:
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
            self.reader.save_pretrained(folder)
        return self.fields.model_copy(update={"source": "", "weights": "random"})


_READERS: dict[str, tuple[Any, Callable[[], Any]]] = {
    "image": (AutoImageProcessor, lambda: np.zeros((64, 64, 3), np.uint8)),
    "text": (AutoTokenizer, lambda: "a"),
    "audio": (AutoFeatureExtractor, lambda: np.zeros(16000, np.float32)),
}
"""What reads each kind, and a value of it, which tells the size of the vector."""
