"""Informer: time series through a transformer encoder (Zhou et al. 2021, arXiv 2012.07436)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import gelu, scaled_dot_product_attention

from mmpost.config.settings import Settings
from mmpost.errors import DataError
from mmpost.models.embedding.encoders import Encoder
from mmpost.models.embedding.encoders._scales import Scales


class InformerFields(Settings):
    """A transformer encoder over steps with channels; the last channel of the data is the mask, 1 at real steps."""

    length: int = Field(default=200, ge=1)
    """Number of steps."""
    channels: int = Field(default=9, ge=1)
    """Numbers per step, without the mask."""
    constant: tuple[int, int] = (3, 3)
    """(first, end) of the channels that hold numbers of the entire series, the same at every step: standardized."""
    dim: int = Field(default=128, ge=1)
    """Width of the hidden states."""
    layers: int = Field(default=8, ge=1)
    """Number of layers."""
    heads: int = Field(default=4, ge=1)
    """Attention heads per layer."""
    hidden: int = Field(default=512, ge=1)
    """Width between the two convolutions of a layer."""
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    """On embeddings, both halves of a layer and the output, in training."""
    attention: Literal["full", "sparse"] = "full"
    """Full, or ProbSparse: only the queries that differ most attend; the others get the mean of the values."""
    factor: int = Field(default=1, ge=1)
    """ProbSparse: factor * ceil(ln length) queries attend, and as many keys are sampled per query to select them."""
    masked: bool = False
    """Mask padding steps in attention; AstroM3 does not, and only sets their outputs to zero."""
    options: dict[str, Any] = {}
    """Options with which media are opened as arrays [step, channel + mask], such as {length: 200}."""


class Informer(Encoder):
    """Circular convolution plus sinusoidal positions, post-norm layers, a final norm; masked with 0 and flattened.

    AstroM3's encoder of light curves: 200 x 9 gives 200 * 128 = 25600.
    """

    Fields = InformerFields
    position: Tensor

    def __init__(self, fields: InformerFields, modality: str, folder: Path | None = None) -> None:
        super().__init__(fields, modality, folder)
        self.fields, self.modality = fields, modality
        self.size, self.cost = fields.length * fields.dim, fields.length
        first, end = fields.constant
        self.scales = Scales(end - first)
        self.value = torch.nn.Conv1d(fields.channels, fields.dim, 3, padding=1, padding_mode="circular", bias=False)
        torch.nn.init.kaiming_normal_(self.value.weight, mode="fan_in", nonlinearity="leaky_relu")
        self.register_buffer("position", sines(fields.length, fields.dim), persistent=False)
        self.blocks = torch.nn.ModuleList(Layer(fields) for _ in range(fields.layers))
        self.norm = torch.nn.LayerNorm(fields.dim)
        self.dropout = torch.nn.Dropout(fields.dropout)

    @property
    def options(self) -> Mapping[str, Any]:
        return self.fields.options

    def collate(self, values: Sequence[Any]) -> dict[str, Tensor]:
        shape = (self.fields.length, self.fields.channels + 1)
        series = [np.asarray(value, np.float32) for value in values]
        for one in series:
            if one.shape != shape:
                raise DataError(
                    f"{self.modality}: wanted an array [step, channel + mask] of shape {list(shape)}, found "
                    f"{list(one.shape)}; correct the medium, or `length`, `channels` and `options` of its encoder"
                )
        return {"x": torch.from_numpy(np.stack(series))}

    def forward(self, x: Float[Tensor, "sample step channel"]) -> Float[Tensor, "sample feature"]:
        """`x` with the mask as its last channel."""
        first, end = self.fields.constant
        mask, data = x[..., -1:], x[..., :-1]
        if end > first:
            data = torch.cat([data[..., :first], self.scales(data[..., first:end]), data[..., end:]], dim=-1)
        hidden = self.dropout(self.value(data.transpose(1, 2)).transpose(1, 2) + self.position)
        real = (mask[..., 0] > 0) if self.fields.masked else None
        for block in self.blocks:
            hidden = block(hidden, real)
        return (self.dropout(self.norm(hidden)) * mask).flatten(1)

    def fit(self, values: Sequence[Any]) -> None:
        first, end = self.fields.constant
        if end > first:
            self.scales.fit(self.collate(values)["x"][:, 0, first:end].to(self.scales.mean))


class Layer(torch.nn.Module):
    """Post-norm attention and feed-forward layer."""

    def __init__(self, fields: InformerFields) -> None:
        super().__init__()
        self.fields = fields
        self.query, self.key, self.values, self.out = (torch.nn.Linear(fields.dim, fields.dim) for _ in range(4))
        self.up = torch.nn.Linear(fields.dim, fields.hidden)
        self.down = torch.nn.Linear(fields.hidden, fields.dim)
        self.norm1, self.norm2 = torch.nn.LayerNorm(fields.dim), torch.nn.LayerNorm(fields.dim)
        self.dropout = torch.nn.Dropout(fields.dropout)

    def forward(
        self, x: Float[Tensor, "sample step dim"], real: Bool[Tensor, "sample step"] | None
    ) -> Float[Tensor, "sample step dim"]:
        """`real`: the steps that may be attended to; None: all."""
        q, k, v = (self._heads(part(x)) for part in (self.query, self.key, self.values))
        if self.fields.attention == "full":
            mixed = scaled_dot_product_attention(q, k, v, attn_mask=_key_mask(real))
        else:
            mixed = prob_sparse_attention(q, k, v, self.fields.factor, real, self.training)
        x = self.norm1(x + self.dropout(self.out(mixed.transpose(1, 2).flatten(2))))
        return self.norm2(x + self.dropout(self.down(self.dropout(gelu(self.up(x))))))

    def _heads(self, x: Float[Tensor, "sample step dim"]) -> Float[Tensor, "sample head step size"]:
        return x.unflatten(-1, (self.fields.heads, -1)).transpose(1, 2)


Heads = Float[Tensor, "sample head step size"]


def prob_sparse_attention(
    q: Heads, k: Heads, v: Heads, factor: int, real: Bool[Tensor, "sample step"] | None, random: bool
) -> Heads:
    """ProbSparse self-attention (Zhou et al. 2021): only u = factor * ceil(ln L) queries attend to all keys.

    These are the queries with the largest max - sum / L of their products with u sampled keys; the others get the mean
    of the values. `random`: sample keys from torch's global generator; otherwise they are always the same, so that
    evaluations are reproducible.
    """
    length = q.shape[2]
    u = min(length, factor * math.ceil(math.log(max(2, length))))
    generator = None if random else torch.Generator().manual_seed(0)
    sampled = torch.randint(length, (length, u), generator=generator).to(q.device)
    products = torch.einsum("bhqd,bhqud->bhqu", q, k[:, :, sampled])
    if real is None:
        importance = products.amax(-1) - products.sum(-1) / length
    else:
        padding = ~real[:, sampled][:, None].expand_as(products)
        highest = products.masked_fill(padding, -torch.inf).amax(-1)
        importance = highest - products.masked_fill(padding, 0.0).sum(-1) / length
        importance = importance.masked_fill(~real[:, None, :].expand(products.shape[:3]), -torch.inf)
    top = importance.topk(u, dim=-1).indices
    selected = q.gather(2, top[..., None].expand(-1, -1, -1, q.shape[-1]))
    attended = scaled_dot_product_attention(selected, k, v, attn_mask=_key_mask(real))
    if real is None:
        mean = v.mean(2, keepdim=True)
    else:
        weight = real[:, None, :, None].to(v)
        mean = (v * weight).sum(2, keepdim=True) / weight.sum(2, keepdim=True).clamp(min=1)
    return mean.expand_as(v).scatter(2, top[..., None].expand_as(attended), attended)


def _key_mask(real: Bool[Tensor, "sample step"] | None) -> Tensor | None:
    return None if real is None else real[:, None, None, :]


def sines(length: int, dim: int) -> Float[Tensor, "step dim"]:
    """Sinusoidal position embeddings (Vaswani et al. 2017)."""
    step = torch.arange(length)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
    out = torch.zeros(length, dim)
    out[:, 0::2], out[:, 1::2] = torch.sin(step * rate), torch.cos(step * rate)[:, : dim // 2]
    return out
