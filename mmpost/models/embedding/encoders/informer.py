"""Series of measurements through a transformer encoder in the manner of Informer."""

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
    """An encoder over steps, each with some channels; the last channel of the data is the mask, 1 at real steps."""

    length: int = Field(default=200, ge=1)
    """Steps."""
    channels: int = Field(default=9, ge=1)
    """Numbers at each step, the mask not counted."""
    constant: tuple[int, int] = (3, 3)
    """From which channel to before which one the numbers are those of the whole series, and are standardised."""
    dim: int = Field(default=128, ge=1)
    """Width of the model."""
    layers: int = Field(default=8, ge=1)
    """Layers."""
    heads: int = Field(default=4, ge=1)
    """Attention heads."""
    hidden: int = Field(default=512, ge=1)
    """Width between the two convolutions of a layer."""
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    """On embeddings, both halves of a layer and the vector, in training."""
    attention: Literal["full", "sparse"] = "full"
    """Every query, or ProbSparse attention: only the queries that differ most, the mean of the values for others."""
    factor: int = Field(default=1, ge=1)
    """ProbSparse: factor * ceil(ln length) queries are kept, and as many keys are drawn to choose them."""
    masked: bool = False
    """Hide steps that only fill up from attention; AstroM3 does not, and zeroes their outputs alone."""
    options: dict[str, Any] = {}
    """With which media are opened, so that they become an array [step, channel + mask], such as {length: 200}."""


class Informer(Encoder):
    """Circular convolution plus sines of the step, post-norm layers, a final norm; zeroed by the mask and flattened.

    AstroM3's encoder of light curves: 200 x 9 gives 200 * 128 = 25600.
    """

    Fields = InformerFields
    position: Tensor

    def __init__(self, fields: InformerFields, kind: str, folder: Path | None = None) -> None:
        super().__init__(fields, kind, folder)
        self.fields, self.kind = fields, kind
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
        wanted = (self.fields.length, self.fields.channels + 1)
        found = [np.asarray(value, np.float32) for value in values]
        for one in found:
            if one.shape != wanted:
                raise DataError(
                    f"{self.kind}: wanted an array [step, channel + mask] of shape {list(wanted)}, found "
                    f"{list(one.shape)}; correct the medium, or `length`, `channels` and `options` of its tower"
                )
        return {"x": torch.from_numpy(np.stack(found))}

    def forward(self, x: Float[Tensor, "sample step channel"]) -> Float[Tensor, "sample feature"]:
        """The last channel is the mask."""
        first, end = self.fields.constant
        mask, data = x[..., -1:], x[..., :-1]
        if end > first:
            data = torch.cat([data[..., :first], self.scales(data[..., first:end]), data[..., end:]], dim=-1)
        hidden = self.dropout(self.value(data.transpose(1, 2)).transpose(1, 2) + self.position)
        seen = (mask[..., 0] > 0) if self.fields.masked else None
        for block in self.blocks:
            hidden = block(hidden, seen)
        return (self.dropout(self.norm(hidden)) * mask).flatten(1)

    def fit(self, values: Sequence[Any]) -> None:
        first, end = self.fields.constant
        if end > first:
            self.scales.fit(self.collate(values)["x"][:, 0, first:end].to(self.scales.mean))


class Layer(torch.nn.Module):
    """Attention and two convolutions of width 1, each added and then normalised."""

    def __init__(self, fields: InformerFields) -> None:
        super().__init__()
        self.fields = fields
        self.query, self.key, self.values, self.out = (torch.nn.Linear(fields.dim, fields.dim) for _ in range(4))
        self.up = torch.nn.Linear(fields.dim, fields.hidden)
        self.down = torch.nn.Linear(fields.hidden, fields.dim)
        self.norm1, self.norm2 = torch.nn.LayerNorm(fields.dim), torch.nn.LayerNorm(fields.dim)
        self.dropout = torch.nn.Dropout(fields.dropout)

    def forward(
        self, x: Float[Tensor, "sample step dim"], seen: Bool[Tensor, "sample step"] | None
    ) -> Float[Tensor, "sample step dim"]:
        q, k, v = (self._heads(part(x)) for part in (self.query, self.key, self.values))
        if self.fields.attention == "full":
            mixed = scaled_dot_product_attention(q, k, v, attn_mask=_mask(seen))
        else:
            mixed = sparse(q, k, v, self.fields.factor, seen, self.training)
        x = self.norm1(x + self.dropout(self.out(mixed.transpose(1, 2).flatten(2))))
        return self.norm2(x + self.dropout(self.down(self.dropout(gelu(self.up(x))))))

    def _heads(self, x: Float[Tensor, "sample step dim"]) -> Float[Tensor, "sample head step size"]:
        return x.unflatten(-1, (self.fields.heads, -1)).transpose(1, 2)


Heads = Float[Tensor, "sample head step size"]


def sparse(q: Heads, k: Heads, v: Heads, factor: int, seen: Bool[Tensor, "sample step"] | None, random: bool) -> Heads:
    """ProbSparse self-attention (Informer, Zhou et al. 2021): u = factor * ceil(ln L) queries attend to all keys.

    They are those with the largest max - sum / L of q k over u drawn keys per query; the other queries get the mean of
    the values. Without `random` the drawn keys are always the same, so that an evaluation can be repeated.
    """
    length = q.shape[2]
    u = min(length, factor * math.ceil(math.log(max(2, length))))
    generator = None if random else torch.Generator().manual_seed(0)
    drawn = torch.randint(length, (length, u), generator=generator).to(q.device)
    products = torch.einsum("bhqd,bhqud->bhqu", q, k[:, :, drawn])
    if seen is None:
        importance = products.amax(-1) - products.sum(-1) / length
    else:
        known = seen[:, None, :].expand(products.shape[:3])
        hidden = ~seen[:, drawn][:, None].expand_as(products)
        highest = products.masked_fill(hidden, -torch.inf).amax(-1)
        importance = highest - products.masked_fill(hidden, 0.0).sum(-1) / length
        importance = importance.masked_fill(~known, -torch.inf)
    top = importance.topk(u, dim=-1).indices
    chosen = q.gather(2, top[..., None].expand(-1, -1, -1, q.shape[-1]))
    attended = scaled_dot_product_attention(chosen, k, v, attn_mask=_mask(seen))
    mean = v.mean(2, keepdim=True) if seen is None else _mean(v, seen)
    return mean.expand_as(v).scatter(2, top[..., None].expand_as(attended), attended)


def _mask(seen: Bool[Tensor, "sample step"] | None) -> Tensor | None:
    return None if seen is None else seen[:, None, None, :]


def _mean(v: Heads, seen: Bool[Tensor, "sample step"]) -> Float[Tensor, "sample head one size"]:
    weight = seen[:, None, :, None].to(v)
    return (v * weight).sum(2, keepdim=True) / weight.sum(2, keepdim=True).clamp(min=1)


def sines(length: int, dim: int) -> Float[Tensor, "step dim"]:
    """Sinusoidal positions (Vaswani et al. 2017), by the number of the step."""
    step = torch.arange(length)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
    out = torch.zeros(length, dim)
    out[:, 0::2], out[:, 1::2] = torch.sin(step * rate), torch.cos(step * rate)[:, : dim // 2]
    return out
