"""What transformers does not say of a model: its parts, the frame it writes coordinates in, the tokens it must not write."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from mmpost.types import Frame

PARTS = {
    "vision": ("model.visual", "model.vision_tower", "model.vision_model"),
    "projector": (
        "model.visual.merger",
        "model.visual.deepstack_merger_list",
        "model.multi_modal_projector",
        "model.connector",
        "model.image_newline",
    ),
    "language": ("model.language_model", "model.text_model"),
    "head": ("lm_head",),
}
"""Names that transformers' families use; the longest prefix that fits a parameter wins."""

THOUSAND = {"qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "internvl", "gemma3"}
"""Families taught to write coordinates on a scale of 0 to 1000 (model cards)."""

PLACEHOLDERS = ("image", "video", "audio", "vision_start", "vision_end", "boi", "eoi", "audio_start", "audio_end")


def parts(module: torch.nn.Module) -> dict[str, list[str]]:
    """Parameter-name prefixes by part, as far as they exist in `module`; the rest is "other"."""
    names = [name for name, _ in module.named_parameters()]
    found = {
        part: [p for p in prefixes if any(n == p or n.startswith(p + ".") for n in names)]
        for part, prefixes in PARTS.items()
    }
    known = tuple(p for prefixes in found.values() for p in prefixes)
    other = sorted({n.rpartition(".")[0] for n in names if not n.startswith(known)})
    return {part: prefixes for part, prefixes in (found | {"other": other}).items() if prefixes}


def part_of(name: str, parts: Mapping[str, Any]) -> str:
    """The part that a parameter belongs to: that of the longest prefix."""
    fits = [(len(p), part) for part, prefixes in parts.items() for p in prefixes if name == p or name.startswith(p + ".")]
    return max(fits)[1]


def banned_ids(config: Any, processor: Any) -> list[int]:
    """Media placeholders and their brackets: a model that wrote one would break its own next forward."""
    ids: set[int] = set()
    for owner in (config, processor):
        for name in PLACEHOLDERS:
            for suffix in ("_token_id", "_token_index"):
                value = getattr(owner, name + suffix, None)
                if isinstance(value, int):
                    ids.add(value)
    tokenizer = getattr(processor, "tokenizer", processor)
    for name in ("image_token", "video_token", "audio_token", "fake_image_token", "global_image_tag"):
        token = getattr(processor, name, None)
        token = getattr(token, "content", token)
        if isinstance(token, str) and token in tokenizer.get_vocab():
            ids.add(tokenizer.convert_tokens_to_ids(token))
    return sorted(ids)


def frame(config: Any, processor: Any, width: int, height: int) -> Frame:
    """Where a model of this family writes coordinates for an image of width x height pixels.

    Qwen2.5-VL: pixels of the resized image (its own resizing rule); families in THOUSAND: 0 to 1000; others: pixels
    of the image as it is.
    """
    if config.model_type in THOUSAND:
        return Frame(1000, 1000)
    if config.model_type == "qwen2_5_vl":
        image = processor.image_processor
        return Frame(*_resized(width, height, image.patch_size * image.merge_size, *_budget(image)))
    return Frame(width, height)


def _budget(image_processor: Any) -> tuple[int, int]:
    size = image_processor.size
    return int(size["shortest_edge"]), int(size["longest_edge"])


def _resized(width: int, height: int, factor: int, low: int, high: int) -> tuple[int, int]:
    """Qwen's rule: both sides to multiples of `factor`, the area within [low, high], the shape kept as far as may be."""
    w, h = max(factor, round(width / factor) * factor), max(factor, round(height / factor) * factor)
    if w * h > high:
        scale = math.sqrt(width * height / high)
        w, h = (max(factor, math.floor(v / scale / factor) * factor) for v in (width, height))
    elif w * h < low:
        scale = math.sqrt(low / (width * height))
        w, h = (math.ceil(v * scale / factor) * factor for v in (width, height))
    return w, h
