"""The startup check of prefix sharing: a model must compute the same with shared prompts as without."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from mmpost.models.chat import packing, padding
from mmpost.models.chat.backbone import Backbone, PrefixDecoder
from mmpost.models.chat.packing import PrefixSharingError
from mmpost.models.chat.prompts import PromptEncoder
from mmpost.types import Part, Sample

TOLERANCE = 1e-3
"""Largest relative difference. A reply that attends to another one, or has wrong positions, is off by far more."""


def check_prefix_sharing(backbone: Backbone, encoder: PromptEncoder) -> str:
    """Switch `backbone` to prefix sharing if it computes the same that way.

    Returns why it does not, and leaves the module's attention as it was; an empty string on success.
    """
    try:
        packing.install(backbone.module)
        with backbone.without_autocast():
            _compare(backbone, encoder)
    except Exception as e:  # noqa: BLE001 - whatever a family's code raises here, it can still run without sharing
        packing.uninstall(backbone.module)
        return str(e) or type(e).__name__
    return ""


def _compare(backbone: Backbone, encoder: PromptEncoder) -> None:
    """Train on, and decode, two small groups packed into one stream, one with media; raises PrefixSharingError."""
    text = Part("text", "one two three")
    # Only the first modality, which the model was made for. Others are checked when they first occur (feature cache).
    media = [Part(modality, p.example()) for modality, p in list(encoder.processors.items())[:1]]
    prompts = [encoder(Sample("media", (*media, text))), encoder(Sample("text", (text,)))]
    ids = prompts[1].ids.repeat(2)[-8:]
    replies = [[ids[:3], ids[3:5], ids[:0]], [ids[5:], ids[2:4]]]
    rows = [(p, r) for p, group in zip(prompts, replies, strict=True) for r in group]
    lengths = [(len(p.ids), len(r)) for p, r in rows]
    row_prompts = [p for p, _ in rows]
    with torch.no_grad():
        padded = padding.training(row_prompts, [r for _, r in rows], backbone.filler_id)
        plain = backbone.hidden_states(padded, **backbone.media_inputs(row_prompts))
        expected = torch.cat([row[n - 1 : n - 1 + m] for row, (n, m) in zip(plain, lengths, strict=True)])
        packed = backbone.hidden_states(packing.packed_inputs(prompts, replies), **backbone.media_inputs(prompts))
        shared = packed[0, packing.predictor_indices(prompts, replies)]
        _assert_close(shared, expected, "hidden states of given replies")
        decoder = PrefixDecoder(backbone, prompts, 2)
        # The decoder's four live replies start like rows 0, 1 (first prompt), 3 and 4 (second prompt).
        first, live = decoder.start(), (0, 1, 3, 4)
        expected = backbone.head(torch.stack([plain[i, lengths[i][0] - 1] for i in (0, 3)]))
        _assert_close(first, expected, "logits of the first decoded token")
        second = decoder.step(torch.stack([rows[i][1][0] for i in live]).to(backbone.device))
        expected = backbone.head(torch.stack([plain[i, lengths[i][0]] for i in live]))
        _assert_close(second, expected, "logits of the second decoded token")


def _assert_close(actual: Float[Tensor, "tok last"], expected: Float[Tensor, "tok last"], what: str) -> None:
    error = float(((actual - expected).norm(dim=-1) / expected.norm(dim=-1)).max())
    if not error <= TOLERANCE:
        raise PrefixSharingError(f"with shared prompts, {what} differ by a relative {error:.2g}")
