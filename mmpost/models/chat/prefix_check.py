"""Whether a model that shares prompts between replies computes what it computes without: tried once, at its start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mmpost.models.chat import packing, padding
from mmpost.models.chat.decoding import PrefixDecoder
from mmpost.models.chat.packing import PrefixSharingError
from mmpost.types import Part, Sample

if TYPE_CHECKING:
    from mmpost.models.chat.model import ChatModel

TOLERANCE = 1e-3
"""Largest relative difference; a reply that sees another, or lies at a wrong place, is off by far more."""


def check_prefix_sharing(model: ChatModel) -> str:
    """Let `model` share prompts if it can; returns why it cannot, or nothing."""
    # Rounding to 16 bits is no sign of a fault.
    kept, model.bf16 = model.bf16, False
    try:
        packing.install(model.module)
        _compare(model)
    except Exception as e:  # noqa: BLE001 - whatever a model's code raises here, it has a path without sharing
        packing.uninstall(model.module)
        return str(e) or type(e).__name__
    finally:
        model.bf16 = kept
    return ""


def _compare(model: ChatModel) -> None:
    """Two small groups in one stream, one of them with media, read and written; raises CannotShare."""
    text = Part("text", "one two three")
    # The first kind is the one that a model was made for; what it says of others shows when they come.
    media = [Part(kind, intake.example()) for kind, intake in list(model.prompt.processors.items())[:1]]
    prompts = [model.prompt(Sample("media", (*media, text))), model.prompt(Sample("text", (text,)))]
    ids = prompts[1].ids.repeat(2)[-8:]
    replies = [[ids[:3], ids[3:5], ids[:0]], [ids[5:], ids[2:4]]]
    flat = [(p, r) for p, group in zip(prompts, replies, strict=True) for r in group]
    lengths = [(len(p.ids), len(r)) for p, r in flat]
    with torch.no_grad():
        alone = padding.training([p for p, _ in flat], [r for _, r in flat], model._filler)
        plain = model._hidden(alone, **model.feature_cache.inputs([p for p, _ in flat]))
        wanted = torch.cat([row[n - 1 : n - 1 + m] for row, (n, m) in zip(plain, lengths, strict=True)])
        hidden = model._hidden(packing.packed_inputs(prompts, replies), **model.feature_cache.inputs(prompts))
        found = hidden[0, packing.predictor_indices(prompts, replies)]
        _same(found, wanted, "replies that are read")
        decoder = PrefixDecoder(model, prompts, 2)
        first, live = decoder.start(), torch.tensor([0, 1, 3, 4])
        begun = torch.stack([plain[i, n - 1] for i, (n, _) in enumerate(lengths) if i in (0, 3)])
        _same(first, model.head(begun), "the first token that is written")
        second = decoder.step(torch.stack([flat[i][1][0] for i in live.tolist()]).to(model.device))
        begun = torch.stack([plain[i, lengths[i][0]] for i in live.tolist()])
        _same(second, model.head(begun), "the second token that is written")


def _same(found: Float[Tensor, "tok last"], wanted: Float[Tensor, "tok last"], what: str) -> None:
    error = float(((found - wanted).norm(dim=-1) / wanted.norm(dim=-1)).max())
    if not error <= TOLERANCE:
        raise PrefixSharingError(f"{what} differ by a relative {error:.2g}")
