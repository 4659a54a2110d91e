"""Prompts computed once for all their replies: the stream that a model reads, and its attention, where it can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from mmpost.models.chat.prompts import EncodedPrompt
from mmpost.models.prefix import kv_cache
from mmpost.models.prefix.attention import attend
from mmpost.models.prefix.layout import Layout, read

NAME = "mmpost_shared"
"""Our attention among those of transformers."""

REFUSED = ("sliding_window", "softcap", "s_aux", "position_bias", "cache")
"""Arguments of attention that ours does not have; a model that uses one computes its prompts again for each reply."""


class PrefixSharingError(Exception):
    """Why a model cannot share prompts between replies."""


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """What layers call. A mask of whole numbers is a layout or a cache of ours; all else is left to torch's attention.

    Raises CannotShare for what a shared prompt would get wrong.
    """
    if attention_mask is None or attention_mask.dtype != torch.long:
        plain: Callable[..., Any] = AttentionInterface()["sdpa"]
        return plain(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more)
    found = [name for name in REFUSED if more.get(name) is not None]
    if found or dropout or more.get("is_causal") is False:
        raise PrefixSharingError(f"its attention has {', '.join(found) or 'dropout or no order'}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    index = getattr(module, "layer_idx", None)
    if int(attention_mask[0, 0, 0, 0]) < 0:
        assert index is not None
        cache = kv_cache.find(int(attention_mask[0, 0, 0, 1]))
        return cache.attend(query, key, value, index, scale), None
    layers = getattr(getattr(module, "config", None), "num_hidden_layers", 0)
    return attend(query, key, value, read(attention_mask), scale, last=index == layers - 1), None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, AttentionMaskInterface()["sdpa"])


def packed_inputs(
    prompts: Sequence[EncodedPrompt], replies: Sequence[Sequence[Int[Tensor, " _"]]]
) -> dict[str, Tensor]:
    """One row [prompt | reply | .. | prompt | ..]; every reply starts where its prompt's positions end.

    The last token of a reply is left out, since it predicts nothing.
    """
    ids, positions = [], []
    for prompt, group in zip(prompts, replies, strict=True):
        ids += [prompt.ids, *(r[:-1] for r in group)]
        positions.append(prompt.positions)
        for reply in group:
            following = prompt.next_position + torch.arange(max(0, len(reply) - 1))
            positions.append(following.expand(len(prompt.positions), -1))
    layout = Layout.of([(len(p.ids), [len(r[:-1]) for r in g]) for p, g in zip(prompts, replies, strict=True)])
    position_ids = torch.cat(positions, dim=1)[:, None]
    return {
        "input_ids": torch.cat(ids)[None],
        "attention_mask": layout.tensor(),
        "position_ids": position_ids[0] if len(position_ids) == 1 else position_ids,
        **_aligned(prompts, replies),
    }


def predictor_indices(
    prompts: Sequence[EncodedPrompt], replies: Sequence[Sequence[Int[Tensor, " _"]]]
) -> Int[Tensor, " tok"]:
    """The column that predicts each reply token: the prompt's last for the first, that before it for the rest."""
    columns, start = [], 0
    for prompt, group in zip(prompts, replies, strict=True):
        last, start = start + len(prompt.ids) - 1, start + len(prompt.ids)
        for reply in group:
            if len(reply):
                columns += [torch.tensor([last]), start + torch.arange(len(reply) - 1)]
                start += len(reply) - 1
    return torch.cat(columns) if columns else torch.empty(0, dtype=torch.long)


def _aligned(prompts: Sequence[EncodedPrompt], replies: Sequence[Sequence[Tensor]]) -> dict[str, Tensor]:
    """Inputs with one value per token; 0 (text) for replies, and for prompts that have none."""
    names = dict.fromkeys(k for p in prompts for k in p.aligned)
    found = {}
    for name in names:
        pieces = []
        for prompt, group in zip(prompts, replies, strict=True):
            own = prompt.aligned.get(name, torch.zeros_like(prompt.ids))
            pieces += [own, own.new_zeros(sum(len(r[:-1]) for r in group))]
        found[name] = torch.cat(pieces)[None]
    return found


def install(module: Any) -> None:
    """Give the language part of a model our attention. Raises CannotShare where it has none to give."""
    text = module.config.get_text_config()
    if text._attn_implementation not in ("sdpa", NAME):
        raise PrefixSharingError(
            f"model.attn_implementation is {text._attn_implementation}, and sharing is built on sdpa"
        )
    kinds = set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
    if kinds:
        raise PrefixSharingError(f"it has layers of {', '.join(sorted(kinds))}")
    _set(module, NAME)
    if text._attn_implementation != NAME:
        raise PrefixSharingError("its attention is not one of transformers' interface")


def uninstall(module: Any) -> None:
    """Give the model torch's attention back."""
    if module.config.get_text_config()._attn_implementation == NAME:
        _set(module, "sdpa")


def _set(module: Any, name: str) -> None:
    text = module.config.get_text_config()
    key = next((k for k in module.config.sub_configs if getattr(module.config, k, None) is text), None)
    module.set_attn_implementation(name if key is None else {key: name})
