"""Writing replies token by token with the model in process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmpost.models.chat import packing, padding
from mmpost.models.chat.logprobs import processed_logprobs
from mmpost.models.chat.prompts import EncodedPrompt
from mmpost.models.prefix.kv_cache import PrefixKVCache
from mmpost.models.prefix.layout import Layout

if TYPE_CHECKING:
    from mmpost.models.chat.model import ChatModel


class ChatDecoder:
    """Writes replies token by token: prompts are prefilled once, their cache is repeated for the n replies of each."""

    def __init__(self, model: ChatModel, prompts: Sequence[EncodedPrompt], n: int) -> None:
        self.model, self.n, self.prompts = model, n, prompts
        self._axes = prompts[0].positions.shape[0]
        self._next = torch.tensor([p.next_position for p in prompts], device=model.device)
        self._cache: Any = None

    def start(self) -> Float[Tensor, "sample vocab"]:
        """Log-prob-ready logits of the first reply token of each sample."""
        inputs = self.model._to_device(padding.prefill(self.prompts, self.model._filler))
        with torch.no_grad(), self.model._arithmetic():
            out = self.model.module(
                **inputs, **self.model.feature_cache.inputs(self.prompts), use_cache=True, logits_to_keep=1
            )
        self._cache = out.past_key_values
        self._mask = inputs["attention_mask"]
        if self.n > 1:
            self.keep(torch.arange(len(self._mask), device=self._mask.device).repeat_interleave(self.n))
        return out.logits[:, -1]

    def step(self, tokens: Int[Tensor, " live"]) -> Float[Tensor, "live vocab"]:
        """Logits after appending one token to each live reply."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        with torch.no_grad(), self.model._arithmetic():
            out = self.model.module(
                input_ids=tokens[:, None],
                attention_mask=self._mask,
                position_ids=self._positions(),
                past_key_values=self._cache,
                use_cache=True,
            )
        self._cache, self._next = out.past_key_values, self._next + 1
        return out.logits[:, -1]

    def keep(self, live: Int[Tensor, " live"]) -> None:
        """Drop all replies but those at the indices `live`."""
        # Meant for beams, but a gather by rows all the same, and the only one that recurrent layers have.
        self._cache.reorder_cache(live)
        self._mask, self._next = self._mask[live], self._next[live]

    def distribution(self, logits: Float[Tensor, "live vocab"], temperature: float) -> Float[Tensor, "live vocab"]:
        """Log-probabilities as the training passes compute them."""
        heat = torch.full((len(logits),), temperature, device=logits.device)
        return processed_logprobs(logits, heat, self.model.banned)

    def _positions(self) -> Int[Tensor, "*axis live 1"]:
        return self._next[:, None] if self._axes == 1 else self._next[None, :, None].expand(self._axes, -1, 1)


class PrefixDecoder(ChatDecoder):
    """The same, where all replies to a prompt read the one copy of its keys."""

    def start(self) -> Float[Tensor, "sample vocab"]:
        model, layout = self.model, Layout.of([(len(p.ids), ()) for p in self.prompts])
        self._cache = PrefixKVCache(model.module.config.get_text_config().num_hidden_layers, layout)
        inputs = packing.packed_inputs(self.prompts, [()] * len(self.prompts))
        last = torch.tensor([run.stop - 1 for run in layout.runs], device=model.device)
        with torch.no_grad(), model._arithmetic():
            media = model.feature_cache.inputs(self.prompts)
            hidden = model._hidden(inputs, **media, past_key_values=self._cache, use_cache=True)[0]
            logits = model.head(hidden[last])
        self._cache.fork(self.n, model.device)
        self._next = self._next.repeat_interleave(self.n)
        return logits

    def step(self, tokens: Int[Tensor, " live"]) -> Float[Tensor, "live vocab"]:
        inputs = {"input_ids": tokens[:, None], "attention_mask": self._cache.mask, "position_ids": self._positions()}
        with torch.no_grad(), self.model._arithmetic():
            hidden = self.model._hidden(inputs, past_key_values=self._cache, use_cache=True)
            logits = self.model.head(hidden[:, -1])
        self._next = self._next + 1
        return logits

    def keep(self, live: Int[Tensor, " live"]) -> None:
        self._cache.keep(live)
        self._next = self._next[live]
