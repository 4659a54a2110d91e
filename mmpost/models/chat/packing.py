"""Packed streams for prefix sharing: the inputs of a model, and the attention function that it is given."""

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
from mmpost.models.prefix.layout import Layout

NAME = "mmpost_shared"
"""The name of `attention` among transformers' attention implementations."""

UNSUPPORTED = ("sliding_window", "softcap", "s_aux", "position_bias", "cache")
"""Arguments of attention functions that `attention` does not implement; a model that uses one cannot share prompts."""


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
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function of language-model layers, with the signature that transformers prescribes.

    An integer mask is a `Layout` (training, prefill) or names a `PrefixKVCache` (decoding); any other mask goes to
    torch's attention, so that padded batches compute as ever. Raises PrefixSharingError for arguments that it does not
    implement.
    """
    if attention_mask is None or attention_mask.dtype != torch.long:
        sdpa: Callable[..., Any] = AttentionInterface()["sdpa"]
        return sdpa(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    unsupported = [name for name in UNSUPPORTED if kwargs.get(name) is not None]
    if unsupported or dropout or kwargs.get("is_causal") is False:
        reason = ", ".join(unsupported) or ("dropout" if dropout else "no causal order")
        raise PrefixSharingError(f"its attention has {reason}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer_index = getattr(module, "layer_idx", None)
    if int(attention_mask[0, 0, 0, 0]) < 0:
        assert layer_index is not None
        cache = kv_cache.find(int(attention_mask[0, 0, 0, 1]))
        return cache.attend(query, key, value, layer_index, scale), None
    num_layers = getattr(getattr(module, "config", None), "num_hidden_layers", 0)
    layout = Layout.from_mask(attention_mask)
    return attend(query, key, value, layout, scale, last=layer_index == num_layers - 1), None


AttentionInterface.register(NAME, attention)
# How transformers builds masks for this implementation where it is given none, or a 2-D one: as for sdpa.
AttentionMaskInterface.register(NAME, AttentionMaskInterface()["sdpa"])


def packed_inputs(
    prompts: Sequence[EncodedPrompt], replies: Sequence[Sequence[Int[Tensor, " _"]]]
) -> dict[str, Tensor]:
    """One row [prompt | reply | .. | prompt | ..], with its layout as the attention mask.

    Positions of every reply start where those of its prompt end. A reply's last token is left out, since it predicts
    nothing.
    """
    ids, positions = [], []
    for prompt, group in zip(prompts, replies, strict=True):
        ids += [prompt.ids, *(r[:-1] for r in group)]
        positions.append(prompt.positions)
        for reply in group:
            following = prompt.next_position + torch.arange(max(0, len(reply) - 1))
            positions.append(following.expand(len(prompt.positions), -1))
    lengths = [(len(p.ids), [len(r[:-1]) for r in group]) for p, group in zip(prompts, replies, strict=True)]
    position_ids = torch.cat(positions, dim=1)[:, None]
    return {
        "input_ids": torch.cat(ids)[None],
        "attention_mask": Layout.from_lengths(lengths).to_mask(),
        "position_ids": position_ids[0] if len(position_ids) == 1 else position_ids,
        **_aligned(prompts, replies),
    }


def predictor_indices(
    prompts: Sequence[EncodedPrompt], replies: Sequence[Sequence[Int[Tensor, " _"]]]
) -> Int[Tensor, " tok"]:
    """The column that predicts each reply token: the prompt's last for the first token, else that of the one before."""
    columns, start = [], 0
    for prompt, group in zip(prompts, replies, strict=True):
        last, start = start + len(prompt.ids) - 1, start + len(prompt.ids)
        for reply in group:
            if len(reply):
                columns += [torch.tensor([last]), start + torch.arange(len(reply) - 1)]
                start += len(reply) - 1
    return torch.cat(columns) if columns else torch.empty(0, dtype=torch.long)


def _aligned(prompts: Sequence[EncodedPrompt], replies: Sequence[Sequence[Tensor]]) -> dict[str, Tensor]:
    """Inputs with one value per token; 0 (text) for replies, and for prompts without that input."""
    names = dict.fromkeys(k for p in prompts for k in p.aligned)
    aligned = {}
    for name in names:
        pieces = []
        for prompt, group in zip(prompts, replies, strict=True):
            values = prompt.aligned.get(name, torch.zeros_like(prompt.ids))
            pieces += [values, values.new_zeros(sum(len(r[:-1]) for r in group))]
        aligned[name] = torch.cat(pieces)[None]
    return aligned


def install(module: Any) -> None:
    """Give the language model inside `module` our attention. Raises PrefixSharingError where it cannot use it."""
    text = module.config.get_text_config()
    if text._attn_implementation not in ("sdpa", NAME):
        raise PrefixSharingError(
            f"model.attn_implementation is {text._attn_implementation}, and prefix sharing builds on sdpa"
        )
    other_layers = set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
    if other_layers:
        raise PrefixSharingError(f"it has layers of {', '.join(sorted(other_layers))}")
    set_attention(module, NAME)
    if text._attn_implementation != NAME:
        raise PrefixSharingError("its attention does not go through transformers' AttentionInterface")


def uninstall(module: Any) -> None:
    """Give the language model inside `module` torch's attention back."""
    if module.config.get_text_config()._attn_implementation == NAME:
        set_attention(module, "sdpa")


def set_attention(module: Any, name: str) -> None:
    """Switch the language model inside `module` to an attention implementation of transformers, where it can be."""
    # By sub-config, so that the vision encoder keeps its own implementation.
    text = module.config.get_text_config()
    key = next((k for k in module.config.sub_configs if getattr(module.config, k, None) is text), None)
    module.set_attn_implementation(name if key is None else {key: name})
