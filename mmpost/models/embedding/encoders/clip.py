"""Image and text encoders of open_clip, by name or configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmpost.config.settings import Settings
from mmpost.errors import ConfigError
from mmpost.models.embedding.encoders import Encoder


class ClipFields(Settings):
    """The image or the text encoder of an open_clip model."""

    source: str = ""
    """A model name of open_clip, such as ViT-B-32."""
    pretrained: str = ""
    """A tag of its weights, such as laion2b_s34b_b79k, or a file; empty: random weights."""
    config: dict[str, Any] = {}
    """Instead of a name: embed_dim, vision_cfg and text_cfg, as in open_clip's model configurations."""
    preprocess: dict[str, Any] = {}
    """Image preprocessing in open_clip's terms; empty: that of the weights."""


class Clip(Encoder):
    """One of the two encoders with its own projection, and preprocessing or tokenizer; outputs are not normalized."""

    Fields = ClipFields

    def __init__(self, fields: ClipFields, modality: str, folder: Path | None = None) -> None:
        super().__init__(fields, modality, folder)
        try:
            import open_clip
        except ImportError as e:
            raise ConfigError(f"encoder for {modality}: wanted open_clip, found none; install mmpost[open-clip]") from e
        if modality not in ("image", "text"):
            raise ConfigError(f"encoder for {modality}: open_clip has image and text; choose another encoder")
        settings = fields.config or open_clip.get_model_config(fields.source)
        if not settings:
            raise ConfigError(
                f"encoder for {modality}: wanted a name of open_clip or a `config`, found {fields.source!r}; there are "
                f"{', '.join(open_clip.list_models()[:8])}, ..."
            )
        if folder is None and fields.pretrained:
            model: Any = open_clip.create_model(fields.source, pretrained=fields.pretrained)
        else:
            text = settings.get("text_cfg", {})
            accepted = {k: v for k, v in settings.items() if k in ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")}
            custom_text = settings.get("custom_text") or text.get("hf_model_name")
            model = (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**accepted)
        preprocess: dict[str, Any] = {}
        # The other encoder is dropped, so that it is neither saved nor trained.
        model.logit_scale = model.logit_bias = None
        if modality == "image":
            self.model: Any = model.visual
            size = model.visual.image_size
            side = size if isinstance(size, int) else size[0]
            preprocess = dict(fields.preprocess or getattr(model.visual, "preprocess_cfg", {}), size=size)
            config = open_clip.transform.PreprocessCfg(**preprocess)
            self.prepare: Any = open_clip.transform.image_transform_v2(config, is_train=False)
            self.cost = (side // settings["vision_cfg"].get("patch_size", 16)) ** 2 + 1
        else:
            model.visual = torch.nn.Identity()
            self.model = model
            self.cost = int(model.context_length)
            name, kwargs = (settings.get("text_cfg", {}).get(k) for k in ("hf_tokenizer_name", "tokenizer_kwargs"))
            if name:
                self.prepare = open_clip.tokenizer.HFTokenizer(name, context_length=self.cost, **(kwargs or {}))
            else:
                self.prepare = open_clip.SimpleTokenizer(context_length=self.cost)
        self.size = int(settings["embed_dim"])
        # A saved model must load without its source: the configuration takes the place of the name.
        resolved = {"source": "", "pretrained": "", "config": settings, "preprocess": preprocess}
        self.modality, self.fields = modality, fields.model_copy(update=resolved)

    def collate(self, values: Sequence[Any]) -> dict[str, Tensor]:
        if self.modality == "text":
            return {"x": self.prepare(list(values))}
        return {"x": torch.stack([self.prepare(value) for value in values])}

    def forward(self, x: Tensor) -> Float[Tensor, "sample feature"]:
        return self.model(x) if self.modality == "image" else self.model.encode_text(x)

    def save(self, folder: Path) -> Settings:
        return self.fields
