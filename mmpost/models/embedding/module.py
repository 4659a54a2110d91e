"""The network of an embedding model: an encoder and a projection per modality, scales of similarities, a classifier."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmpost.config import registry
from mmpost.config.run_config import decode
from mmpost.errors import ConfigError
from mmpost.models.embedding.encoders import Encoder
from mmpost.models.embedding.spec import EmbeddingSpec, HeadSettings, ScaleSettings


class EmbeddingModule(torch.nn.Module):
    """All that has weights. The names of its attributes are those of saved weights."""

    def __init__(self, spec: EmbeddingSpec, folder: Path | None = None) -> None:
        """`folder`: where a model was saved, whose encoders are rebuilt without their sources; None for a new one."""
        super().__init__()
        encoders = {modality: make_encoder(modality, fields, folder) for modality, fields in spec.encoders.items()}
        self.towers = torch.nn.ModuleDict(encoders)
        self.projections = torch.nn.ModuleDict(
            {modality: torch.nn.Linear(encoder.size, spec.dim) for modality, encoder in encoders.items()}
        )
        self.log_scale, self.bias = torch.nn.ParameterDict(), torch.nn.ParameterDict()
        pairs = [f"{a}-{b}" for a, b in itertools.combinations(encoders, 2)]
        for name in ["all"] if spec.scale.shared and pairs else pairs:
            self.log_scale[name] = torch.nn.Parameter(torch.tensor(spec.scale.init))
            if spec.scale.bias is not None:
                self.bias[name] = torch.nn.Parameter(torch.tensor(spec.scale.bias))
        self.head: torch.nn.Linear | None = None
        self.register_buffer("fitted", torch.tensor(False))
        if spec.head is not None:
            self.make_head(spec.head, spec.dim)

    def encoder(self, modality: str) -> Encoder:
        encoder = self.towers[modality]
        assert isinstance(encoder, Encoder)
        return encoder

    def make_head(self, head: HeadSettings, dim: int) -> None:
        """Replace the classifier by a fresh one over embeddings of size `dim`, or over one modality's features.

        Raises ConfigError for modalities that the model does not have, or that this pooling cannot combine.
        """
        unknown = [modality for modality in head.modalities if modality not in self.towers]
        if unknown or (head.pooling == "features" and len(head.modalities) != 1):
            raise ConfigError(
                f"head: wanted {'one' if head.pooling == 'features' else 'some'} of the modalities {list(self.towers)} "
                f"for pooling={head.pooling}, found {list(head.modalities)}"
            )
        size = dim * len(head.modalities) if head.pooling == "concat" else dim
        if head.pooling == "features":
            size = self.projections[head.modalities[0]].in_features
        self.head = torch.nn.Linear(size, head.classes).to(self.fitted.device)  # type: ignore[arg-type, call-overload]

    def scalars(self, scale: ScaleSettings) -> dict[str, Float[Tensor, ""]]:
        """Log-scales and biases for `Outputs.aux`; "log_scale" if all pairs share one, else "log_scale/a-b"."""
        scalars = {}
        for name, value in self.log_scale.items():
            out = value
            if scale.clamp == "forward":
                # Not torch.clamp: at ln 100, where AstroM3 starts, rounding could place the value outside and block its
                # gradient. Here a value at the bound passes its gradient on.
                clamped = value.detach().clamp(scale.low, scale.high)
                out = torch.where(value.detach() == clamped, value, clamped)
            scalars["log_scale" if name == "all" else f"log_scale/{name}"] = out
        for name, value in self.bias.items():
            scalars["bias" if name == "all" else f"bias/{name}"] = value
        return scalars


def make_encoder(modality: str, fields: Mapping[str, Any], folder: Path | None) -> Encoder:
    """The encoder that `fields` names, with its other fields; `folder` is that of a saved model.

    Raises ConfigError for unknown fields, and for code in a file that a saved model names: opening a model that comes
    from elsewhere must not run code from it.
    """
    name = str(fields.get("name", ""))
    if folder is not None and registry.is_file(name):
        raise ConfigError(
            f"{folder}: its encoder for {modality} is the file {name}, and no file is run because a folder names it; "
            "install the encoder as a package and name it by a dotted path"
        )
    encoder: Any = registry.exported(registry.module(name, "mmpost.models.embedding.encoders"), Encoder)
    options = decode(encoder.Fields, {k: v for k, v in fields.items() if k != "name"}, f"encoders.{modality}.")
    return encoder(options, modality, None if folder is None else folder / "towers" / modality)
