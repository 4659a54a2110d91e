"""The network of a chat VLM without its tokenizer: hidden states, logits, and the features of its media."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmpost.config.settings import ComputeSettings
from mmpost.errors import ConfigError
from mmpost.models.chat import families, padding
from mmpost.models.chat.feature_cache import EncoderFeatureCache
from mmpost.models.chat.logprobs import LanguageHead
from mmpost.models.chat.prompts import EncodedPrompt
from mmpost.models.media.processors import MediaProcessor


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
        self._after_head: families.AfterHead = lambda logits: logits

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
