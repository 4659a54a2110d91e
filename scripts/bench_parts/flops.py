"""Lower bound of the FLOPs of a step, from the model's sizes.

One multiplication and one addition are two FLOPs. Only matrix products count (the count of Prefix Grouper,
arXiv 2506.05433): per token 2 x the weights of all linear layers; per layer and visible query-key pair 4 x the query
width; a backward pass is twice its forward. Norms, rotary positions, softmax and the optimiser are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench_parts.work import Shape


@dataclass(frozen=True)
class Floor:
    """FLOPs of one step."""

    rollout: float
    training: float

    @property
    def step(self) -> float:
        return self.rollout + self.training


def floor(shape: Shape, config: Any, arm: str) -> Floor:
    """The FLOPs that an arm needs at least, given how often it computes prompts and images.

    shared: once in the rollout and once in training; plain: once in the rollout and once per reply in training; trl:
    once per reply in both. Every reply token attends to the whole prompt.
    """
    text, p, g, c = config.get_text_config(), shape.prompt, shape.group, shape.reply
    prefills, trained = {"shared": (1, 1), "plain": (1, g), "trl": (g, g)}[arm]
    prompt = p * _text_weights(text) * 2 + p * p / 2 * _pair(text) + _vision_encoder(shape, config)
    replies = g * c * _text_weights(text) * 2 + g * (c * p + c * c / 2) * _pair(text) + g * c * _head(text)
    # The last reply token is sampled but never fed back, and the first is sampled from the prompt's last position.
    read = c - 1
    written = g * read * _text_weights(text) * 2 + g * (read * p + read * read / 2) * _pair(text)
    written += (prefills + g * read) * _head(text)
    return Floor(shape.prompts * (prefills * prompt + written), shape.prompts * 3 * (trained * prompt + replies))


def _text_weights(text: Any) -> float:
    width = text.hidden_size
    head = getattr(text, "head_dim", None) or width // text.num_attention_heads
    attention = width * head * (2 * text.num_attention_heads + 2 * text.num_key_value_heads)
    return text.num_hidden_layers * (attention + 3 * width * text.intermediate_size)


def _pair(text: Any) -> float:
    return 4.0 * text.hidden_size * text.num_hidden_layers


def _head(text: Any) -> float:
    return 2.0 * text.hidden_size * text.vocab_size


def _vision_encoder(shape: Shape, config: Any) -> float:
    """One image through the vision encoder: patch embedding, layers with full and with window attention, merger."""
    v, patches = config.vision_config, shape.side**2 * 4
    if not patches:
        return 0.0
    merged = v.hidden_size * v.spatial_merge_size**2
    into = v.in_channels * v.temporal_patch_size * v.patch_size**2 * v.hidden_size
    out = (merged * merged + merged * v.out_hidden_size) / v.spatial_merge_size**2
    layer = 4 * v.hidden_size**2 + 3 * v.hidden_size * v.intermediate_size
    window = min(patches, (v.window_size // v.patch_size) ** 2)
    full = len([i for i in v.fullatt_block_indexes if i < v.depth])
    pairs = patches * (full * patches + (v.depth - full) * window)
    return 2.0 * patches * (into + out + v.depth * layer) + 4.0 * v.hidden_size * pairs
