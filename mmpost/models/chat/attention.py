"""The attention of reply tokens to the tokens that stand for media, from passes over one sequence at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmpost.errors import ConfigError
from mmpost.models.chat import packing, padding
from mmpost.models.chat.backbone import Backbone
from mmpost.models.chat.prompts import EncodedPrompt


def attention_to_media(
    backbone: Backbone,
    prompts: Sequence[EncodedPrompt],
    replies: Sequence[Sequence[Int[Tensor, " _"]]],
    placeholders: Collection[int],
    layers: float,
) -> list[list[Float[Tensor, "tok media"]]]:
    """See `GenerativeModel.attention`. `placeholders`: ids of the tokens that stand for media.

    The module's mode and attention implementation are restored afterwards, and the encoders of media keep theirs.
    """
    if not 0 < layers <= 1:
        raise ConfigError(f"wanted a fraction of the layers, above 0 and at most 1, found {layers}")
    module, training = backbone.module, backbone.module.training
    module.eval()
    try:
        with torch.no_grad():
            return [
                [_of_reply(backbone, prompt, reply, _media_columns(prompt, placeholders), layers) for reply in group]
                for prompt, group in zip(prompts, replies, strict=True)
            ]
    finally:
        module.train(training)


def _media_columns(prompt: EncodedPrompt, placeholders: Collection[int]) -> Int[Tensor, " media"]:
    """Where the prompt's tokens stand for media. Raises ConfigError where media have no tokens that are known."""
    columns = torch.isin(prompt.ids, torch.tensor(sorted(placeholders), dtype=torch.long)).nonzero()[:, 0]
    if prompt.media_inputs and not len(columns):
        raise ConfigError(
            "attention to media: wanted the prompt's tokens that stand for media, found none, since neither "
            "configuration nor processor names them (image_token_id and the like); choose another family"
        )
    return columns


def _of_reply(
    backbone: Backbone, prompt: EncodedPrompt, reply: Int[Tensor, " tok"], columns: Int[Tensor, " media"], layers: float
) -> Float[Tensor, "tok media"]:
    if not (len(reply) and len(columns)):
        return torch.zeros(len(reply), len(columns))
    # Given a batch, trained encoders keep their features too, which further replies to the prompt need. It comes before
    # the switch, so that features are those of every other pass.
    media = backbone.media_inputs([prompt], prompt)
    inputs = padding.training([prompt], [reply], backbone.filler_id)
    rows = slice(len(prompt.ids), len(prompt.ids) + len(reply))
    with _eager(backbone.module), _recorded(backbone.module, rows, columns.to(backbone.device), layers) as recorded:
        backbone.hidden_states(inputs, **media)
    if not recorded:
        raise ConfigError(
            f"attention to media: wanted softmax attention in the last {layers:.2g} of the layers, found none in "
            f"{type(backbone.module).__name__} whose weights its layers return; choose another family, or more layers"
        )
    return torch.stack([*recorded.values()]).mean(0).cpu()


@contextmanager
def _eager(module: Any) -> Iterator[None]:
    """Let the language model compute attention weights; raises ConfigError where its implementation is fixed."""
    text = module.config.get_text_config()
    before = text._attn_implementation
    packing.set_attention(module, "eager")
    try:
        if text._attn_implementation != "eager":
            raise ConfigError(
                f"attention to media: wanted a family whose attention can be switched to eager, found "
                f"{type(module).__name__}; set model.attn_implementation=eager, or choose another family"
            )
        yield
    finally:
        packing.set_attention(module, before)


@contextmanager
def _recorded(
    module: Any, rows: slice, columns: Int[Tensor, " media"], layers: float
) -> Iterator[dict[int, Float[Tensor, "tok media"]]]:
    """Collects the weights of the queries `rows` on the keys `columns`, averaged over heads, by index of the layer.

    transformers' own `output_attentions` would keep the weights of all tokens in all layers until the pass ends.
    """
    text, recorded = module.config.get_text_config(), {}
    first = text.num_hidden_layers - max(1, round(layers * text.num_hidden_layers))

    def record(layer: Any, _: Any, output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        # Whole decoder layers also have an index, and recurrent ones and cross-attention other outputs.
        if isinstance(weights, Tensor) and weights.dim() == 4 and weights.shape[-1] == weights.shape[-2]:
            recorded[layer.layer_idx] = weights[0, :, rows].index_select(-1, columns).float().mean(0)

    # The layers whose implementation `_eager` switches are those that share the language model's configuration.
    own = [(getattr(m, "layer_idx", None), m) for m in module.modules() if getattr(m, "config", None) is text]
    handles = [m.register_forward_hook(record) for index, m in own if isinstance(index, int) and index >= first]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
