"""The KV cache of shared prompts: each prompt's keys and values once, and those of each reply in its own block."""

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
"""Tokens that a reply's block first has room for; a full one doubles."""

# Attention finds a cache by the number in its mask. Weak references let a cache go with its decoder.
_caches: WeakValueDictionary[int, PrefixKVCache] = WeakValueDictionary()
_numbers = itertools.count()


class PrefixKVLayer(CacheLayerMixin):
    """One layer: first takes the keys of a stream of prompts, then those of one token of every live reply at a time."""

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.prompt_keys: Tensor | None = None
        self.prompt_values: Tensor | None = None
        self.length = 0
        """Tokens in each reply's block."""

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
        """Rearrange the keys of the packed prompts into one right-padded row per prompt."""
        assert self.prompt_keys is not None
        assert self.prompt_values is not None
        self.prompt_keys, self.prompt_values = (
            pad_sequence(list(x[0].transpose(0, 1).split(lengths)), batch_first=True).transpose(1, 2).contiguous()
            for x in (self.prompt_keys, self.prompt_values)
        )

    def keep(self, live: Int[Tensor, " live"], prompts: Int[Tensor, " prompt"] | None) -> None:
        """Keep only the replies at the indices `live`, and the prompts at `prompts`; None keeps all prompts."""
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
    """Keys and values of several prompts and of the live replies to each.

    `mask` takes the place of the attention mask in decoding steps: [-1, number], by which attention finds the cache
    (`find`). A layout's first number is positive, which tells the two apart.
    """

    def __init__(self, num_layers: int, layout: Layout) -> None:
        """`layout`: that of the prompts alone, as the prefill packs them."""
        self.prefix_layers = [PrefixKVLayer() for _ in range(num_layers)]
        super().__init__(layers=[*self.prefix_layers])
        self.lengths = [group[0] for group in layout.groups]
        number = next(_numbers)
        self.mask = torch.tensor([[[[-1, number]]]])
        _caches[number] = self

    def fork(self, n: int, device: torch.device) -> None:
        """End the prefill: from here on every prompt has `n` live replies."""
        for layer in self.prefix_layers:
            layer.fork(self.lengths)
        longest, size = max(self.lengths), torch.tensor(self.lengths, device=device)
        padding = torch.arange(longest, device=device) >= size[:, None]
        self.bias = (
            torch.zeros(padding.shape, device=device).masked_fill(padding, -torch.inf) if padding.any() else None
        )
        """Added to the scores of prompt keys; None where no prompt is padded."""
        self._assign_slots(torch.arange(len(size), device=device).repeat_interleave(n))

    def keep(self, live: Int[Tensor, " live"]) -> None:
        """Keep only the live replies at these indices, and the prompts that still have one."""
        prompts, prompt_of = self.prompt_of[live].unique(return_inverse=True)
        for layer in self.prefix_layers:
            layer.keep(live, prompts if len(prompts) < self.num_prompts else None)
        self.bias = self.bias if self.bias is None else self.bias[prompts]
        self._assign_slots(prompt_of)

    def _assign_slots(self, prompt_of: Int[Tensor, " live"]) -> None:
        """Give each live reply a slot of its prompt. All prompts have the same number of slots; some stay empty."""
        self.prompt_of = prompt_of
        counts = prompt_of.bincount()
        self.num_prompts, self.num_slots = len(counts), int(counts.max())
        order = prompt_of.argsort(stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[prompt_of[order]]
        self.slot_of = prompt_of * self.num_slots + rank
        """For each live reply, its slot among those of all prompts."""
        self.reply_in = torch.zeros(self.num_prompts * self.num_slots, dtype=torch.long, device=order.device)
        """For each slot, its reply; empty slots have the first."""
        self.reply_in[self.slot_of] = torch.arange(len(order), device=order.device)
        self.in_order = torch.equal(self.slot_of, torch.arange(self.num_prompts * self.num_slots, device=order.device))
        """Whether reply i is in slot i and no slot is empty, so that nothing has to be gathered."""

    def attend(
        self, q: Float[Tensor, "live head 1 dim"], k: Tensor, v: Tensor, layer_index: int, scale: float
    ) -> Float[Tensor, "live 1 head dim"]:
        """Attention of one new token of each live reply; k, v [live kv written dim]: those of the reply itself."""
        prompt_keys = self.prefix_layers[layer_index].prompt_keys
        prompt_values = self.prefix_layers[layer_index].prompt_values
        assert prompt_keys is not None
        assert prompt_values is not None
        live, kv, written, dim = k.shape
        heads_per_kv = q.shape[1] // kv
        q = q.to(k.dtype).reshape(live, kv, heads_per_kv, dim) * scale
        # The queries of all replies to a prompt, and of all heads that share a key head, are the rows of one matrix
        # product with the prompt's keys: the prompt is read once however many replies it has.
        far = self._prompt_rows(q) @ prompt_keys.transpose(2, 3)
        if self.bias is not None:
            far = far + self.bias[:, None, None]
        near = self._prompt_rows(q @ k.transpose(2, 3))
        weights = torch.cat([far, near], dim=3).softmax(-1, dtype=torch.float32).to(v.dtype)
        far, near = weights[..., :-written], weights[..., -written:]
        out = self._reply_rows(far @ prompt_values, heads_per_kv) + self._reply_rows(near, heads_per_kv) @ v
        return out.reshape(live, 1, kv * heads_per_kv, dim)

    def _prompt_rows(self, x: Float[Tensor, "live kv heads last"]) -> Float[Tensor, "prompt kv rows last"]:
        """From live replies to the rows of their prompts; `heads`: query heads per key head."""
        x = x if self.in_order else x[self.reply_in]
        return x.unflatten(0, (self.num_prompts, self.num_slots)).transpose(1, 2).flatten(2, 3)

    def _reply_rows(self, x: Float[Tensor, "prompt kv rows last"], heads: int) -> Float[Tensor, "live kv heads last"]:
        """From rows of prompts back to live replies."""
        x = x.unflatten(2, (self.num_slots, heads)).transpose(1, 2).flatten(0, 1)
        return x if self.in_order else x[self.slot_of]


def find(number: int) -> PrefixKVCache:
    """The cache with this number in its mask."""
    return _caches[number]
