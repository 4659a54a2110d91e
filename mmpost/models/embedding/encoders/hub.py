"""Any encoder of transformers for images, text or audio, by hub id or folder."""

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
    """A pretrained model of transformers, or its architecture with random weights."""

    source: str = ""
    """Folder or hub id, with its processor; empty in a saved model, which holds both."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """Those of the source, or random ones for its configuration."""
    pool: Literal["auto", "mean", "first"] = "auto"
    """Pooling of the last hidden states; auto: the family's own features or pooled output if any, else the mean."""
    tokens: int = 128
    """Texts are truncated to so many tokens."""


class Hub(Encoder):
    """The source's own processor and module; the vector is its features (CLIP), its pooled output, or a mean."""

    Fields = HubFields

    def __init__(self, fields: HubFields, modality: str, folder: Path | None = None) -> None:
        super().__init__(fields, modality, folder)
        self.fields, self.modality = fields, modality
        source = str(folder) if folder is not None else fields.source
        if modality not in _PROCESSORS:
            raise ConfigError(
                f"encoder for {modality}: a model of transformers takes {', '.join(_PROCESSORS)}; choose another"
            )
        processor, example = _PROCESSORS[modality]
        try:
            with quiet():
                self.processor: Any = processor.from_pretrained(source)
                if folder is None and fields.weights == "pretrained":
                    self.model: Any = AutoModel.from_pretrained(source, dtype=torch.float32)
                else:
                    self.model = AutoModel.from_config(AutoConfig.from_pretrained(source))
        except (OSError, ValueError, KeyError, ImportError) as e:
            raise ConfigError(
                f"encoder for {modality}: wanted a model of transformers with its processor, found {source!r}, which "
                f"it cannot load: {e}"
            ) from e
        self.model.eval()
        with torch.no_grad():
            self.size = self(**self.collate([example()])).shape[-1]
        self.cost = 256

    def collate(self, values: Sequence[Any]) -> dict[str, Tensor]:
        if self.modality == "text":
            truncation = {"padding": True, "truncation": True, "max_length": self.fields.tokens}
            inputs = self.processor(list(values), **truncation, return_tensors="pt")
        elif self.modality == "image":
            inputs = self.processor(list(values), return_tensors="pt")
        else:
            waves = [np.asarray(getattr(v, "samples", v), np.float32) for v in values]
            options = {"sampling_rate": self.processor.sampling_rate, "return_tensors": "pt", "padding": True}
            inputs = self.processor(waves, **options)
            if inputs.get("input_values", torch.empty(0)).dim() == 2:
                # Raw waves (wav2vec 2.0): normalized one by one, and encoded one by one (see `forward`).
                single = [self.processor([wave], **options)["input_values"][0] for wave in waves]
                sizes = torch.tensor([len(wave) for wave in single])
                return {"input_values": torch.nn.utils.rnn.pad_sequence(single, batch_first=True), "sizes": sizes}
        return {name: value for name, value in inputs.items() if isinstance(value, Tensor)}

    @property
    def options(self) -> dict[str, Any]:
        return {"rate": self.processor.sampling_rate} if self.modality == "audio" else {}

    def forward(self, **inputs: Tensor) -> Float[Tensor, "sample feature"]:
        if "sizes" in inputs:
            # Without padding: convolutions and group norms over a wave would see it.
            sizes = inputs["sizes"].tolist()
            waves = zip(inputs["input_values"], sizes, strict=True)
            return torch.cat([self._vectors(input_values=wave[None, :size]) for wave, size in waves])
        return self._vectors(**inputs)

    def _vectors(self, **inputs: Tensor) -> Float[Tensor, "sample feature"]:
        get_features = getattr(self.model, f"get_{self.modality}_features", None)
        if get_features is not None and self.fields.pool == "auto":
            features = get_features(**inputs)
            return features if isinstance(features, Tensor) else features.pooler_output
        out = self.model(**inputs)
        pooled = getattr(out, "pooler_output", None)
        if pooled is not None and self.fields.pool == "auto":
            return pooled.flatten(1)
        states = out.last_hidden_state
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


_PROCESSORS: dict[str, tuple[Any, Callable[[], Any]]] = {
    "image": (AutoImageProcessor, lambda: np.zeros((64, 64, 3), np.uint8)),
    "text": (AutoTokenizer, lambda: "a"),
    "audio": (AutoFeatureExtractor, lambda: np.zeros(16000, np.float32)),
}
"""The processor class of each modality, and an example, from whose encoding the size of the vector is known."""
