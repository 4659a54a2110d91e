"""Token-by-token decoding with the model in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmpost.models.chat import packing, padding
from mmpost.models.chat.backbone import Backbone
from mmpost.models.chat.logprobs import processed_logprobs
from mmpost.models.chat.prompts import EncodedPrompt
from mmpost.models.prefix.kv_cache import PrefixKVCache
from mmpost.models.prefix.layout import Layout


class ChatDecoder:
    """Decodes `n` replies to each prompt: prefills every prompt once, then copies its KV cache for each reply."""

    def __init__(self, backbone: Backbone, prompts: Sequence[EncodedPrompt], n: int) -> None:
        self.backbone, self.n, self.prompts = backbone, n, prompts
        self._axes = prompts[0].positions.shape[0]
        self._next_position = torch.tensor([p.next_position for p in prompts], device=backbone.device)
        self._cache: Any = None

    def start(self) -> Float[Tensor, "sample vocab"]:
        """Prefill; returns the logits of each prompt's first reply token, before temperature and banned tokens."""
        inputs = self.backbone.to_device(padding.prefill(self.prompts, self.backbone.filler_id))
        with torch.no_grad(), self.backbone.autocast():
            media = self.backbone.media_inputs(self.prompts)
            out = self.backbone.module(**inputs, **media, use_cache=True, logits_to_keep=1)
        self._cache = out.past_key_values
        self._mask = inputs["attention_mask"]
        if self.n > 1:
            self.keep(torch.arange(len(self._mask), device=self._mask.device).repeat_interleave(self.n))
        return out.logits[:, -1]

    def step(self, tokens: Int[Tensor, " live"]) -> Float[Tensor, "live vocab"]:
        """Append one token to each live reply; returns the logits of the next."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        with torch.no_grad(), self.backbone.autocast():
            out = self.backbone.module(
                input_ids=tokens[:, None],
                attention_mask=self._mask,
                position_ids=self._position_ids(),
                past_key_values=self._cache,
                use_cache=True,
            )
        self._cache, self._next_position = out.past_key_values, self._next_position + 1
        return out.logits[:, -1]

    def keep(self, live: Int[Tensor, " live"]) -> None:
        """Keep only the replies at the indices `live`, in that order."""
        # transformers has it for beam search. It gathers rows, and recurrent layers offer no other way to do so.
        self._cache.reorder_cache(live)
        self._mask, self._next_position = self._mask[live], self._next_position[live]

    def distribution(self, logits: Float[Tensor, "live vocab"], temperature: float) -> Float[Tensor, "live vocab"]:
        """Log-probabilities, computed as in the training passes."""
        temperatures = torch.full((len(logits),), temperature, device=logits.device)
        return processed_logprobs(logits, temperatures, self.backbone.banned)

    def _position_ids(self) -> Int[Tensor, "*axis live 1"]:
        position = self._next_position
        return position[:, None] if self._axes == 1 else position[None, :, None].expand(self._axes, -1, 1)


class PrefixDecoder(ChatDecoder):
    """Decodes with one copy of each prompt's keys and values, which all of its replies read."""

    def start(self) -> Float[Tensor, "sample vocab"]:
        backbone, layout = self.backbone, Layout.from_lengths([(len(p.ids), ()) for p in self.prompts])
        self._cache = PrefixKVCache(backbone.module.config.get_text_config().num_hidden_layers, layout)
        inputs = packing.packed_inputs(self.prompts, [()] * len(self.prompts))
        last = torch.tensor([group.stop - 1 for group in layout.prompt_groups], device=backbone.device)
        with torch.no_grad(), backbone.autocast():
            media = backbone.media_inputs(self.prompts)
            hidden = backbone.hidden_states(inputs, **media, past_key_values=self._cache, use_cache=True)[0]
            logits = backbone.head(hidden[last])
        self._cache.fork(self.n, backbone.device)
        self._next_position = self._next_position.repeat_interleave(self.n)
        return logits

    def step(self, tokens: Int[Tensor, " live"]) -> Float[Tensor, "live vocab"]:
        # The cache's mask names it to the attention of every layer; see mmpost/models/prefix/README.md.
        inputs = {
            "input_ids": tokens[:, None],
            "attention_mask": self._cache.mask,
            "position_ids": self._position_ids(),
        }
        with torch.no_grad(), self.backbone.autocast():
            hidden = self.backbone.hidden_states(inputs, past_key_values=self._cache, use_cache=True)
            logits = self.backbone.head(hidden[:, -1])
        self._next_position = self._next_position + 1
        return logits

    def keep(self, live: Int[Tensor, " live"]) -> None:
        self._cache.keep(live)
        self._next_position = self._next_position[live]
