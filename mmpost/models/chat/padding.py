"""Padded rows of prompts and replies, for models and passes without prefix sharing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import pad

from mmpost.models.chat.prompts import EncodedPrompt


def stack(
    rows: Sequence[Int[Tensor, "*axis _"]], width: int, left: bool, value: int = 0
) -> Int[Tensor, "*axis row width"]:
    """Rows of different lengths, padded with `value` to `width`; positions [axis len] become [axis row len]."""
    padded = [pad(r, (width - r.shape[-1], 0) if left else (0, width - r.shape[-1]), value=value) for r in rows]
    return torch.stack(padded, dim=-2)


def media(prompts: Sequence[EncodedPrompt]) -> dict[str, Tensor]:
    """The media inputs of several prompts, in their order: concatenated, smaller ones padded with zeros.

    Processors pad a batch in the same way: families whose images have different numbers of tiles mark absent tiles by
    zeros.
    """
    merged = {}
    media_of = [p.media for p in prompts]
    for name in dict.fromkeys(k for inputs in media_of for k in inputs):
        tensors = [inputs[name] for inputs in media_of if name in inputs]
        shape = [max(t.shape[d] for t in tensors) for d in range(1, tensors[0].dim())]
        merged[name] = torch.cat(
            [pad(t, [v for d in range(t.dim() - 1, 0, -1) for v in (0, shape[d - 1] - t.shape[d])]) for t in tensors]
        )
    return merged


def training(
    prompts: Sequence[EncodedPrompt], replies: Sequence[Int[Tensor, " _"]], filler_id: int
) -> dict[str, Tensor]:
    """One row per reply, [prompt | reply] padded on the right, with mask and positions."""
    full = [torch.cat([p.ids, r]) for p, r in zip(prompts, replies, strict=True)]
    width = max(len(f) for f in full)
    positions = []
    for prompt, reply in zip(prompts, replies, strict=True):
        following = prompt.next_position + torch.arange(len(reply))
        positions.append(torch.cat([prompt.positions, following.expand(len(prompt.positions), -1)], dim=1))
    return {
        "input_ids": stack(full, width, left=False, value=filler_id),
        "attention_mask": stack([torch.ones_like(f) for f in full], width, left=False),
        "position_ids": _squeeze(stack(positions, width, left=False)),
        **_aligned(prompts, width, left=False),
    }


def prefill(prompts: Sequence[EncodedPrompt], filler_id: int) -> dict[str, Tensor]:
    """One row per prompt, padded on the left, so that all replies start in the same column."""
    width = max(len(p.ids) for p in prompts)
    return {
        "input_ids": stack([p.ids for p in prompts], width, left=True, value=filler_id),
        "attention_mask": stack([torch.ones_like(p.ids) for p in prompts], width, left=True),
        "position_ids": _squeeze(stack([p.positions for p in prompts], width, left=True)),
        **_aligned(prompts, width, left=True),
    }


def _aligned(prompts: Sequence[EncodedPrompt], width: int, left: bool) -> dict[str, Tensor]:
    """Inputs with one value per token; 0 (text) for replies, padding, and prompts without that input."""
    names = dict.fromkeys(k for p in prompts for k in p.aligned)
    return {k: stack([p.aligned.get(k, torch.zeros_like(p.ids)) for p in prompts], width, left) for k in names}


def _squeeze(positions: Int[Tensor, "axis row len"]) -> Tensor:
    return positions[0] if positions.shape[0] == 1 else positions
