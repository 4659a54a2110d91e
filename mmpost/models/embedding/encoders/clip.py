"""Towers of open_clip for images and text, by name or configuration."""

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
    """One side of a model of open_clip."""

    source: str = ""
    """A name of open_clip, such as ViT-B-32."""
    pretrained: str = ""
    """A tag of its weights, such as laion2b_s34b_b79k, or a file; empty: fresh ones."""
    config: dict[str, Any] = {}
    """In place of a name: embed_dim, vision_cfg and text_cfg, as in open_clip's model configurations."""
    preprocess: dict[str, Any] = {}
    """How images are prepared, as open_clip writes it; empty: as the weights want it."""


class Clip(Encoder):
    """The image or the text side, with its own projection, preprocessing and tokenizer; not normalised."""

    Fields = ClipFields

    def __init__(self, fields: ClipFields, kind: str, folder: Path | None = None) -> None:
        super().__init__(fields, kind, folder)
        try:
            import open_clip
        except ImportError as e:
            raise ConfigError(f"tower of {kind}: wanted open_clip, found none; install mmpost[open-clip]") from e
        if kind not in ("image", "text"):
            raise ConfigError(f"tower of {kind}: open_clip has image and text; choose another encoder")
        settings = fields.config or open_clip.get_model_config(fields.source)
        if not settings:
            raise ConfigError(
                f"tower of {kind}: wanted a name of open_clip or a `config`, found {fields.source!r}; there are "
                f"{', '.join(open_clip.list_models()[:8])}, ..."
            )
        if folder is None and fields.pretrained:
            whole: Any = open_clip.create_model(fields.source, pretrained=fields.pretrained)
        else:
            text = settings.get("text_cfg", {})
            kept = {k: v for k, v in settings.items() if k in ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")}
            apart = settings.get("custom_text") or text.get("hf_model_name")
            whole = (open_clip.CustomTextCLIP if apart else open_clip.CLIP)(**kept)
        chosen: dict[str, Any] = {}
        # The other side is dropped, so that it is neither saved nor counted among what trains.
        whole.logit_scale = whole.logit_bias = None
        if kind == "image":
            self.model: Any = whole.visual
            size = whole.visual.image_size
            side = size if isinstance(size, int) else size[0]
            chosen = dict(fields.preprocess or getattr(whole.visual, "preprocess_cfg", {}), size=size)
            wanted = open_clip.transform.PreprocessCfg(**chosen)
            self.prepare: Any = open_clip.transform.image_transform_v2(wanted, is_train=False)
            self.cost = (side // settings["vision_cfg"].get("patch_size", 16)) ** 2 + 1
        else:
            whole.visual = torch.nn.Identity()
            self.model = whole
            self.cost = int(whole.context_length)
            named, more = (settings.get("text_cfg", {}).get(k) for k in ("hf_tokenizer_name", "tokenizer_kwargs"))
            if named:
                self.prepare = open_clip.tokenizer.HFTokenizer(named, context_length=self.cost, **(more or {}))
            else:
                self.prepare = open_clip.SimpleTokenizer(context_length=self.cost)
        self.size = int(settings["embed_dim"])
        said = {"source": "", "pretrained": "", "config": settings, "preprocess": chosen}
        self.kind, self.fields = kind, fields.model_copy(update=said)

    def collate(self, values: Sequence[Any]) -> dict[str, Tensor]:
        if self.kind == "text":
            return {"x": self.prepare(list(values))}
        return {"x": torch.stack([self.prepare(value) for value in values])}

    def forward(self, x: Tensor) -> Float[Tensor, "sample feature"]:
        return self.model(x) if self.kind == "image" else self.model.encode_text(x)

    def save(self, folder: Path) -> Settings:
        return self.fields
