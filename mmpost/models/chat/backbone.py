"""The network of a chat VLM without its tokenizer: hidden states, logits, features of media, and decoding by token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmpost.config.settings import ComputeSettings
from mmpost.errors import ConfigError
from mmpost.models.chat import families, packing, padding
from mmpost.models.chat.feature_cache import EncoderFeatureCache
from mmpost.models.chat.logprobs import LanguageHead, processed_logprobs
from mmpost.models.chat.prompts import EncodedPrompt
from mmpost.models.media.processors import MediaProcessor
from mmpost.models.prefix.kv_cache import PrefixKVCache
from mmpost.models.prefix.layout import Layout


class Backbone:
    """A transformers module with the precision it computes in and the cache of its encoders' outputs.

    `ChatModel`, the decoders and the check of prefix sharing are built on it.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        device: torch.device,
        bf16: bool,
        filler_id: int,
        banned_ids: Sequence[int],
        processors: Mapping[str, MediaProcessor],
        compute: ComputeSettings,
    ) -> None:
        """Moves `module` to `device`. `banned_ids`: tokens that get no probability.

        `filler_id`: the token in padded positions, which no mask lets anything read.
        """
        self.module: Any = module.to(device)
        self.device, self.bf16, self.filler_id = device, bf16, filler_id
        self.feature_cache = EncoderFeatureCache(self.module, device, self.autocast, bf16, processors, compute)
        vocab_size = self.module.get_output_embeddings().weight.shape[0]
        self.banned: Bool[Tensor, " vocab"] = torch.zeros(vocab_size, dtype=torch.bool, device=device)
        self.banned[[i for i in banned_ids if i < vocab_size]] = True
        self._after_head: families.AfterHead = torch.nn.Identity()

    def autocast(self) -> torch.autocast:
        """Matrix products in bf16 where the settings ask for it; weights stay in their own precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    @contextmanager
    def without_autocast(self) -> Iterator[None]:
        """Computes in the precision of the weights, for comparisons that rounding to 16 bits would blur."""
        bf16, self.bf16 = self.bf16, False
        try:
            yield
        finally:
            self.bf16 = bf16

    def to_device(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Model inputs on the device, except for a packed layout.

        A 4-D "attention mask" is a layout (see mmpost/models/prefix/README.md). The host reads it in every layer, so
        that on a GPU it would force a synchronization each time.
        """
        return {k: v if k == "attention_mask" and v.dim() == 4 else v.to(self.device) for k, v in inputs.items()}

    def hidden_states(self, inputs: Mapping[str, Tensor], **kwargs: Any) -> Float[Tensor, "row len dim"]:
        """Last hidden states for `inputs`; `kwargs` go to the module's `model` as they are."""
        with self.autocast():
            return self.module.model(**self.to_device(inputs), **({"use_cache": False} | kwargs)).last_hidden_state

    def media_inputs(self, prompts: Sequence[EncodedPrompt], batch: object = None) -> dict[str, Any]:
        """What the module's `model` takes for the media of `prompts`; see `EncoderFeatureCache.inputs`."""
        return self.feature_cache.inputs(prompts, batch)

    @property
    def head(self) -> LanguageHead:
        """From hidden states to logits. Built anew each time, since an adapter may have replaced the output layer."""
        return LanguageHead(self.module.get_output_embeddings(), self._after_head)

    def detect_after_head(self, prompt: EncodedPrompt, name: str) -> None:
        """Find out what the family does to its logits after the head (soft capping, scaling), by a forward of `prompt`.

        The whole module, which computes its positions itself, is the reference. Raises ConfigError, naming the model
        `name`, where no known operation at the positions that mmpost computes reproduces its logits.
        """
        inputs = self.to_device(padding.training([prompt], [torch.empty(0, dtype=torch.long)], self.filler_id))
        without_positions = {k: v for k, v in inputs.items() if k != "position_ids"}
        with torch.no_grad(), self.autocast():
            expected = self.module(**without_positions, use_cache=False).logits.float()
            raw = self.module.get_output_embeddings()(self.hidden_states(inputs))
            candidates = families.after_head(self.module.config)
            errors = [float((f(raw).float() - expected).abs().max()) for f in candidates]
        best = min(range(len(errors)), key=errors.__getitem__)
        # The bound is as wide as two calls in 16-bit arithmetic may differ.
        if not errors[best] <= 0.05 * float(expected.abs().max()):
            raise ConfigError(
                f"model={name}: wanted a model whose logits are its head over its last hidden states, "
                f"found {type(self.module).__name__}, which differs by {errors[best]:.2g}; choose another family"
            )
        self._after_head = candidates[best]


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
