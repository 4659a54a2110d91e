"""Facts about model families that transformers does not expose: parts, coordinates, tokens that must not be written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmpost.core.parameter_groups import owner, under

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
"""Parameter-name prefixes of the families in transformers; the longest one that matches a parameter wins."""

PLACEHOLDERS = (
    *("image", "video", "audio", "vision_start", "vision_end", "start_image", "end_image", "context_image"),
    *("boi", "eoi", "boa", "eoa", "audio_start", "audio_end", "audio_bos", "audio_eos", "vision_bos", "vision_eos"),
    *("fake_image", "global_image", "image_start", "image_end", "image_break", "img_break", "img_end"),
)
"""Media tokens by their attributes in configurations, processors and tokenizers, without the ending `_token`,
`_token_id` or `_token_index`."""

DROPOUTS = ("attention_dropout", "attn_dropout", "dropout", "activation_dropout", "hidden_dropout", "layerdrop")
"""Attributes from which layers take the probability of a functional dropout."""

AfterHead = Callable[[Tensor], Tensor]

AFTER_HEAD: dict[str, Callable[[float, Tensor], Tensor]] = {
    "final_logit_softcapping": lambda cap, logits: torch.tanh(logits / cap) * cap,
    "logit_scale": lambda scale, logits: logits * scale,
    "logits_scaling": lambda scale, logits: logits / scale,
}
"""Operations on the logits after the head, by the configuration value that may ask for them."""


def parameter_groups(module: torch.nn.Module) -> dict[str, list[str]]:
    """Parameter-name prefixes by part, those that exist in `module`; the remaining parameters are "other"."""
    names = [name for name, _ in module.named_parameters()]
    groups = {part: [p for p in prefixes if any(under(n, p) for n in names)] for part, prefixes in PARTS.items()}
    other = sorted({n.rpartition(".")[0] or n for n in names if owner(n, groups) == "other"})
    return {part: prefixes for part, prefixes in (groups | {"other": other}).items() if prefixes}


def banned_ids(config: Any, processor: Any) -> list[int]:
    """Media placeholders and their brackets: in a reply they would stand for media that are not there."""
    tokenizer = getattr(processor, "tokenizer", processor)
    ids: set[int] = set()
    for source in (config, processor, tokenizer):
        for name in PLACEHOLDERS:
            candidates = [getattr(source, name + suffix, None) for suffix in ("_token_id", "_token_index")]
            token = getattr(source, name + "_token", None)
            token = getattr(token, "content", token)
            if isinstance(token, str):
                candidates.append(tokenizer.get_vocab().get(token))
            ids |= {i for i in candidates if isinstance(i, int)}
    return sorted(ids)


def placeholder_ids(config: Any, processor: Any) -> frozenset[int]:
    """The tokens whose embeddings are replaced by the features of media."""
    names = [f"{modality}_token_{ending}" for modality in ("image", "video", "audio") for ending in ("id", "index")]
    candidates = [getattr(source, name, None) for source in (config, processor) for name in names]
    return frozenset(i for i in candidates if isinstance(i, int))


def after_head(config: Any) -> list[AfterHead]:
    """Candidates for what the family does to its head's output, the identity first, then what `config` has values for.

    A family may ignore a value, so that `Backbone.detect_after_head` tries them.
    """
    text = config.get_text_config()
    candidates: list[AfterHead] = [torch.nn.Identity()]
    for name, operation in AFTER_HEAD.items():
        value = getattr(text, name, None) or getattr(config, name, None)
        if isinstance(value, int | float):
            candidates.append(partial(operation, float(value)))
    return candidates


def switch_off_dropout(module: torch.nn.Module) -> None:
    """Set all dropout to 0, since log-probs of the same weights must agree between passes.

    Adapters are added later, and keep theirs.
    """
    for child in module.modules():
        if isinstance(child, torch.nn.Dropout):
            child.p = 0.0
        for name in DROPOUTS:
            if isinstance(getattr(child, name, None), float):
                setattr(child, name, 0.0)
