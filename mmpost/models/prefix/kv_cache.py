"""Keys and values while replies are written: a prompt's once for all its replies, each reply's own in a block."""

from __future__ import annotations

import itertools
from typing import Any
from weakref import WeakValueDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import Cache, CacheLayerMixin

from mmpost.models.prefix.layout import Layout

BLOCK = 64
"""Tokens for which a reply's block has room at first; it doubles when full."""

_alive: WeakValueDictionary[int, PrefixKVCache] = WeakValueDictionary()
_numbers = itertools.count()


class Layer(CacheLayerMixin):
    """One layer: first takes the keys of a stream of prompts, then a token of every live reply at a time."""

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.prompt_keys: Tensor | None = None
        self.prompt_values: Tensor | None = None
        self.length = 0
        """Tokens in the blocks."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        shape = (*key_states.shape[:2], BLOCK)
        self.keys = key_states.new_empty(*shape, key_states.shape[3])
        self.values = value_states.new_empty(*shape, value_states.shape[3])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self.prompt_keys is None:
            self.prompt_keys, self.prompt_values = key_states, value_states
            return key_states, value_states
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        if self.length == self.keys.shape[2]:
            self.keys, self.values = (torch.cat([x, torch.empty_like(x)], 2) for x in (self.keys, self.values))
        self.keys[:, :, self.length], self.values[:, :, self.length] = key_states[:, :, 0], value_states[:, :, 0]
        self.length += 1
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def fork(self, lengths: list[int]) -> None:
        """From keys in a stream to one row per prompt, padded on the right."""
        assert self.prompt_keys is not None
        assert self.prompt_values is not None
        self.prompt_keys, self.prompt_values = (
            pad_sequence(list(x[0].transpose(0, 1).split(lengths)), batch_first=True).transpose(1, 2).contiguous()
            for x in (self.prompt_keys, self.prompt_values)
        )

    def keep(self, live: Int[Tensor, " live"], prompts: Int[Tensor, " prompt"] | None) -> None:
        """Drop all replies but those at `live`, and all prompts but those at `prompts`, if given."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[live], self.values[live]
        if prompts is not None and self.prompt_keys is not None and self.prompt_values is not None:
            self.prompt_keys, self.prompt_values = self.prompt_keys[prompts], self.prompt_values[prompts]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        return 0 if self.prompt_keys is None else self.prompt_keys.shape[2] + self.length

    def get_max_length(self) -> int:
        return -1


class PrefixKVCache(Cache):
    """The cache of live replies to several prompts.

    `mask` stands for it in place of an attention mask, as `Layout.tensor` stands for a layout.
    """

    def __init__(self, layers: int, layout: Layout) -> None:
        self.forks = [Layer() for _ in range(layers)]
        super().__init__(layers=[*self.forks])
        self.lengths = [g[0] for g in layout.groups]
        number = next(_numbers)
        self.mask = torch.tensor([[[[-1, number]]]])
        _alive[number] = self

    def fork(self, n: int, device: torch.device) -> None:
        """From here on every prompt has `n` live replies."""
        for layer in self.forks:
            layer.fork(self.lengths)
        longest, size = max(self.lengths), torch.tensor(self.lengths, device=device)
        hidden = torch.arange(longest, device=device) >= size[:, None]
        self.bias = torch.zeros(hidden.shape, device=device).masked_fill(hidden, -torch.inf) if hidden.any() else None
        """Added to the scores of prompt keys; None where no prompt is padded."""
        self._arrange(torch.arange(len(size), device=device).repeat_interleave(n))

    def keep(self, live: Int[Tensor, " live"]) -> None:
        """Drop all replies but those at these indices, and prompts that have none left."""
        prompts, prompt_of = self.prompt_of[live].unique(return_inverse=True)
        for layer in self.forks:
            layer.keep(live, prompts if len(prompts) < self.prompts else None)
        self.bias = self.bias if self.bias is None else self.bias[prompts]
        self._arrange(prompt_of)

    def _arrange(self, prompt_of: Int[Tensor, " live"]) -> None:
        """Give every live reply a slot of its prompt; prompts with fewer replies than others have empty ones."""
        self.prompt_of = prompt_of
        counts = prompt_of.bincount()
        self.prompts, self.slots = len(counts), int(counts.max())
        order = prompt_of.argsort(stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[prompt_of[order]]
        self.slot_of = prompt_of * self.slots + rank
        """For each live reply, its slot among all."""
        self.reply_in = torch.zeros(self.prompts * self.slots, dtype=torch.long, device=order.device)
        """For each slot, its reply; empty slots have the first."""
        self.reply_in[self.slot_of] = torch.arange(len(order), device=order.device)
        self.full = torch.equal(self.slot_of, torch.arange(self.prompts * self.slots, device=order.device))
        """Whether the replies lie in their slots already."""

    def attend(
        self, q: Float[Tensor, "live head 1 dim"], k: Tensor, v: Tensor, index: int, scale: float
    ) -> Float[Tensor, "live 1 head dim"]:
        """Attention of one new token of each live reply; k and v are its own so far, [live kv own dim]."""
        keys, values = self.forks[index].prompt_keys, self.forks[index].prompt_values
        assert keys is not None
        assert values is not None
        live, kv, own, dim = k.shape
        share = q.shape[1] // kv
        q = q.to(k.dtype).reshape(live, kv, share, dim) * scale
        rows = q if self.full else q[self.reply_in]
        # All replies to a prompt, and all heads that share a key head, are rows of one product with its keys.
        rows = rows.unflatten(0, (self.prompts, self.slots)).transpose(1, 2).flatten(2, 3)
        far = rows @ keys.transpose(2, 3)
        if self.bias is not None:
            far = far + self.bias[:, None, None]
        near = q @ k.transpose(2, 3)
        near = near if self.full else near[self.reply_in]
        near = near.unflatten(0, (self.prompts, self.slots)).transpose(1, 2).flatten(2, 3)
        weights = torch.cat([far, near], dim=3).softmax(-1, dtype=torch.float32).to(v.dtype)
        far, near = weights[..., :-own], weights[..., -own:]
        out = self._replies(far @ values, share) + self._replies(near, share) @ v
        return out.reshape(live, 1, kv * share, dim)

    def _replies(self, x: Float[Tensor, "prompt kv rows last"], share: int) -> Float[Tensor, "live kv share last"]:
        """From rows of prompts back to live replies."""
        x = x.unflatten(2, (self.slots, share)).transpose(1, 2).flatten(0, 1)
        return x if self.full else x[self.slot_of]


def find(number: int) -> PrefixKVCache:
    """The cache that a mask names."""
    return _alive[number]
