"""The floor: multiplications and additions that a step must do, from the sizes of the model alone.

One multiplication and one addition are two FLOPs. Only matrix products count (methods of shared prefixes: Prefix Grouper,
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


def floor(shape: Shape, config: Any, shared: bool) -> Floor:
    """With each prompt and image computed once in the rollout and once in training, or once per reply in training.

    The plain path, too, prefills a prompt once. Keys and values of a prompt are read by every reply in both.
    """
    text, p, g, c = config.get_text_config(), shape.prompt, shape.group, shape.reply
    times = 1 if shared else g
    tokens, pairs = times * p + g * c, times * p * p / 2 + g * (c * p + c * c / 2)
    forward = tokens * _text_weights(text) * 2 + pairs * _pair(text) + times * _tower(shape, config)
    training = 3 * (forward + g * c * _head(text))
    # The last reply token is drawn and never read, the first is drawn from the prompt's last position.
    written = g * (c - 1)
    rollout = (
        (p + written) * _text_weights(text) * 2
        + (p * p / 2 + g * ((c - 1) * p + (c - 1) ** 2 / 2)) * _pair(text)
        + (1 + written) * _head(text)
        + _tower(shape, config)
    )
    return Floor(shape.prompts * rollout, shape.prompts * training)


def _text_weights(text: Any) -> float:
    width = text.hidden_size
    head = getattr(text, "head_dim", None) or width // text.num_attention_heads
    attention = width * head * (2 * text.num_attention_heads + 2 * text.num_key_value_heads)
    return text.num_hidden_layers * (attention + 3 * width * text.intermediate_size)


def _pair(text: Any) -> float:
    return 4.0 * text.hidden_size * text.num_hidden_layers


def _head(text: Any) -> float:
    return 2.0 * text.hidden_size * text.vocab_size


def _tower(shape: Shape, config: Any) -> float:
    """One image through the vision tower: layers with full attention, layers with windows, patches in and merger."""
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
