"""What transformers does not say of a model: its parts, its coordinates, the tokens that it must not write."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmpost.core.parameter_groups import owner, under
from mmpost.types import CoordinateFrame

PARTS = {
    "vision": (
        *("model.visual", "model.vision_tower", "model.vision_model", "model.vision_encoder", "model.image_tower"),
        *("model.high_res_vision_model", "model.vision_embed_tokens"),
    ),
    "projector": (
        *("model.visual.merger", "model.visual.deepstack_merger_list", "model.visual.downsample"),
        *("model.multi_modal_projector", "model.mm_projector", "model.projector", "model.vision_projection"),
        *("model.connector", "model.aligner", "model.merger", "model.image_newline", "model.embed_vision"),
    ),
    "audio": ("model.audio_tower", "model.embed_audio"),
    "language": ("model.language_model", "model.text_model"),
    "head": ("lm_head",),
}
"""Names that transformers' families use; the longest prefix that fits a parameter wins."""

THOUSAND = {"qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "internvl", "gemma3"}
"""Families taught to write coordinates on a scale of 0 to 1000 (model cards)."""

PLACEHOLDERS = (
    *("image", "video", "audio", "vision_start", "vision_end", "start_image", "end_image", "context_image"),
    *("boi", "eoi", "boa", "eoa", "audio_start", "audio_end", "audio_bos", "audio_eos", "vision_bos", "vision_eos"),
    *("fake_image", "global_image", "image_start", "image_end", "image_break", "img_break", "img_end"),
)
"""Tokens by their names in configurations, processors and tokenizers, with `_token`, `_token_id` or `_token_index`."""

DROPOUTS = ("attention_dropout", "attn_dropout", "dropout", "activation_dropout", "hidden_dropout", "layerdrop")
"""Attributes that layers read as the probability of a dropout that is no module."""

AfterHead = Callable[[Tensor], Tensor]

AFTER_HEAD: dict[str, Callable[[float, Tensor], Tensor]] = {
    "final_logit_softcapping": lambda cap, logits: torch.tanh(logits / cap) * cap,
    "logit_scale": lambda scale, logits: logits * scale,
    "logits_scaling": lambda scale, logits: logits / scale,
}
"""What a value of this name in a configuration may mean for the logits."""


def parameter_groups(module: torch.nn.Module) -> dict[str, list[str]]:
    """Parameter-name prefixes by part, as far as they exist in `module`; the rest is "other"."""
    names = [name for name, _ in module.named_parameters()]
    found = {part: [p for p in prefixes if any(under(n, p) for n in names)] for part, prefixes in PARTS.items()}
    other = sorted({n.rpartition(".")[0] or n for n in names if owner(n, found) == "other"})
    return {part: prefixes for part, prefixes in (found | {"other": other}).items() if prefixes}


def banned_ids(config: Any, processor: Any) -> list[int]:
    """Media placeholders and their brackets: a model that wrote one would break its own next forward."""
    tokenizer = getattr(processor, "tokenizer", processor)
    ids: set[int] = set()
    for place in (config, processor, tokenizer):
        for name in PLACEHOLDERS:
            found = [getattr(place, name + suffix, None) for suffix in ("_token_id", "_token_index")]
            token = getattr(place, name + "_token", None)
            token = getattr(token, "content", token)
            if isinstance(token, str):
                found.append(tokenizer.get_vocab().get(token))
            ids |= {i for i in found if isinstance(i, int)}
    return sorted(ids)


def placeholder_ids(config: Any, processor: Any) -> frozenset[int]:
    """The tokens that stand for media, one each for a piece of the medium."""
    names = [f"{kind}_token_{end}" for kind in ("image", "video", "audio") for end in ("id", "index")]
    found = [getattr(owner, name, None) for owner in (config, processor) for name in names]
    return frozenset(i for i in found if isinstance(i, int))


def after_head(config: Any) -> list[AfterHead]:
    """What families do to the output of their head, as far as `config` names it; the first does nothing."""
    text = config.get_text_config()
    found: list[AfterHead] = [lambda logits: logits]
    for name, operation in AFTER_HEAD.items():
        value = getattr(text, name, None) or getattr(config, name, None)
        if isinstance(value, int | float):
            found.append(partial(operation, float(value)))
    return found


def switch_off_dropout(module: torch.nn.Module) -> None:
    """Log-probs of the same weights must agree between passes; an adapter's own dropout comes later and stays."""
    for child in module.modules():
        if isinstance(child, torch.nn.Dropout):
            child.p = 0.0
        for name in DROPOUTS:
            if isinstance(getattr(child, name, None), float):
                setattr(child, name, 0.0)


def coordinate_frame(config: Any, processor: Any, width: int, height: int, setting: str) -> CoordinateFrame:
    """Where a model of this family writes coordinates for an image of width x height pixels.

    Qwen2.5-VL: pixels of the resized image (its own resizing rule); families in THOUSAND: 0 to 1000; others: pixels
    of the image as it is. `setting` (the setting model.coordinates) says it for a model that was taught otherwise.
    """
    if setting == "thousand" or (setting == "auto" and config.model_type in THOUSAND):
        return CoordinateFrame(1000, 1000)
    if setting == "auto" and config.model_type == "qwen2_5_vl":
        image = processor.image_processor
        return CoordinateFrame(*_resized(width, height, image.patch_size * image.merge_size, *_budget(image)))
    return CoordinateFrame(width, height)


def _budget(image_processor: Any) -> tuple[int, int]:
    size = image_processor.size
    return int(size["shortest_edge"]), int(size["longest_edge"])


def _resized(width: int, height: int, factor: int, low: int, high: int) -> tuple[int, int]:
    """Qwen's rule: both sides multiples of `factor`, the area within [low, high], the shape kept as far as may be."""
    w, h = max(factor, round(width / factor) * factor), max(factor, round(height / factor) * factor)
    if w * h > high:
        scale = math.sqrt(width * height / high)
        w, h = (max(factor, math.floor(v / scale / factor) * factor) for v in (width, height))
    elif w * h < low:
        scale = math.sqrt(low / (width * height))
        w, h = (math.ceil(v * scale / factor) * factor for v in (width, height))
    return w, h
