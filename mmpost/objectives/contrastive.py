"""Contrastive learning over any number of modalities, pair by pair."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import model_validator
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from mmpost.core.samples import at_least_fp32
from mmpost.errors import ConfigError
from mmpost.types import Batch, Loss, Objective, Outputs

Matrix = Float[Tensor, "row row"]


@dataclass(frozen=True)
class _Pair:
    """Two modalities whose embeddings are compared."""

    a: str
    b: str
    weight: float

    @property
    def name(self) -> str:
        return f"{self.a}-{self.b}"


class Contrastive(Objective):
    """InfoNCE (CLIP, arXiv 2103.00020) or SigLIP (arXiv 2303.15343) over pairs of modalities, on the whole step.

    For a pair (a, b), only samples with both modalities are queries and keys. With x, y their embeddings
    [sample, dim] and logits exp(log_scale) x y^T + bias [sample, sample], InfoNCE is the mean over samples of
    (CE over rows + CE over columns) / 2, and SigLIP the sum over all entries of -ln sigmoid(+-logit) divided by the
    number of samples. The model provides normalized embeddings, scales and biases (`Outputs.aux`: "log_scale/a-b", or
    "log_scale" for all pairs; "bias/a-b" or "bias", no bias if absent). Copies of a sample in one step are positives
    of each other. Logits and losses are at least fp32.
    """

    unit: ClassVar[Literal["reply", "group", "batch"]] = "batch"

    modalities: tuple[str, ...]
    """The modalities to compare, at least two."""
    loss: Literal["infonce", "siglip"] = "infonce"
    """Softmax over the batch, or binary classification of every entry of the similarity matrix."""
    pairs: Literal["all", "star"] = "all"
    """Every pair of modalities, or each modality with the anchor."""
    anchor: str = ""
    """The modality in the center of the star; empty: the first."""
    weights: dict[str, float] = {}
    """Weights of pairs, by "a-b" in either order; by default 1, and 0 leaves a pair out."""
    half: bool = True
    """Average the losses over rows and columns (CLIP), or add them (AstroM3); no effect on SigLIP."""
    reduce: Literal["mean", "sum"] = "mean"
    """Over pairs: a mean, in which a pair also counts by its number of samples, or the sum (AstroM3)."""
    positives: str = ""
    """A sample column (a label, an object id): samples with the same number are positives of each other too.
    Integers below 2^24, which fp32 holds exactly; negative: unknown."""

    @model_validator(mode="after")
    def _fits(self) -> Contrastive:
        if len(self.modalities) < 2 or len(set(self.modalities)) < len(self.modalities):
            raise ValueError(f"modalities: wanted at least two different ones, found {list(self.modalities)}")
        if self.anchor and (self.pairs == "all" or self.anchor not in self.modalities):
            raise ValueError(
                f"anchor: wanted pairs=star and one of {list(self.modalities)}, "
                f"found {self.anchor!r}, pairs={self.pairs}"
            )
        names = {name for a, b in self._combinations() for name in (f"{a}-{b}", f"{b}-{a}")}
        unknown = sorted(set(self.weights) - names)
        if unknown or any(w < 0 for w in self.weights.values()) or not self._pairs():
            raise ValueError(
                f"weights: wanted non-negative numbers, not all 0, for the pairs "
                f"{', '.join(f'{a}-{b}' for a, b in self._combinations())}, found {self.weights}"
            )
        return self

    def _combinations(self) -> list[tuple[str, str]]:
        if self.pairs == "all":
            return list(itertools.combinations(self.modalities, 2))
        anchor = self.anchor or self.modalities[0]
        return [(anchor, modality) for modality in self.modalities if modality != anchor]

    def _pairs(self) -> list[_Pair]:
        pairs = [
            _Pair(a, b, self.weights.get(f"{a}-{b}", self.weights.get(f"{b}-{a}", 1.0)))
            for a, b in self._combinations()
        ]
        return [pair for pair in pairs if pair.weight]

    @property
    def required_outputs(self) -> frozenset[str]:
        return frozenset({"embeddings"})

    @property
    def required_columns(self) -> frozenset[str]:
        return frozenset({self.positives} - {""})

    def counts(self, batch: Batch) -> Mapping[str, float]:
        sizes = {pair.name: float(len(self._both(batch, pair))) for pair in self._pairs()}
        if self.reduce == "sum":
            return sizes
        return {"contrastive": sum(self._relative_weight(pair) * sizes[pair.name] for pair in self._pairs())}

    def _relative_weight(self, pair: _Pair) -> float:
        """The pair's weight in the mean, relative to the lightest: so the denominator is at least one sample."""
        return pair.weight / min(p.weight for p in self._pairs())

    def _both(self, batch: Batch, pair: _Pair) -> Int[Tensor, " row"]:
        """Indices of the samples with both modalities; none if there are too few for a comparison."""
        both = (batch.has(pair.a) & batch.has(pair.b)).nonzero()[:, 0]
        return both if len(both) >= (2 if self.loss == "infonce" else 1) else both[:0]

    def __call__(self, outputs: Outputs, batch: Batch) -> Loss:
        """Raises ConfigError if the model lacks an encoder, a scale or a bias of one of the modalities."""
        missing = [m for m in self.modalities if m not in outputs.embeddings and bool(batch.has(m).any())]
        if missing:
            raise ConfigError(
                f"wanted embeddings of {list(self.modalities)} from the model, found {sorted(outputs.embeddings)}; "
                f"add an encoder for {missing[0]}, or leave it out of `modalities`"
            )
        same = self._same(batch)
        terms: dict[str, Tensor] = {}
        metrics: dict[str, tuple[Tensor | float, Tensor | float]] = {}
        # Retrieval probabilities summed over pairs, for the accuracy of all modalities together.
        votes = batch.sample_ids.new_zeros(batch.samples, batch.samples, dtype=torch.float32)
        for pair in self._pairs():
            both = self._both(batch, pair)
            logits = self._logits(outputs, pair, both)
            positive = same[both][:, both]
            value = self._loss(logits, positive)
            terms[pair.name] = value
            scale = float(_aux(outputs, "log_scale", pair).detach().exp())
            metrics[f"scale/{pair.name}"] = (scale, 1.0)
            metrics[f"loss/{pair.name}"] = (value.detach(), float(len(both)))
            if len(both):
                probabilities = logits.detach().softmax(1) / 2 + logits.detach().softmax(0) / 2
                metrics[f"accuracy/{pair.name}"] = (_hits(probabilities, positive), float(len(both)))
                votes[both[:, None], both] += probabilities.float()
        complete = torch.stack([batch.has(modality) for modality in self.modalities]).all(0).nonzero()[:, 0]
        if len(complete):
            hits = _hits(votes[complete][:, complete], same[complete][:, complete])
            metrics["accuracy"] = (hits, float(len(complete)))
        if self.reduce == "sum":
            return Loss({pair.name: pair.weight * terms[pair.name] for pair in self._pairs()}, metrics)
        total = torch.stack([self._relative_weight(pair) * terms[pair.name] for pair in self._pairs()]).sum()
        return Loss({"contrastive": total}, metrics)

    def _same(self, batch: Batch) -> Bool[Tensor, "sample sample"]:
        """Which samples are positives of each other: a sample and its copies, and those that `positives` groups."""
        same = batch.sample_ids[:, None] == batch.sample_ids
        if self.positives:
            column = batch.sample(self.positives)
            same = same | ((column[:, None] == column) & (column >= 0))
        return same

    def _logits(self, outputs: Outputs, pair: _Pair, both: Int[Tensor, " row"]) -> Matrix:
        x, y = _embeddings(outputs, pair, both)
        logits = at_least_fp32(_aux(outputs, "log_scale", pair)).exp() * (x @ y.T)
        bias = _find_aux(outputs, "bias", pair)
        return logits if bias is None else logits + at_least_fp32(bias)

    def _loss(self, logits: Matrix, positive: Bool[Tensor, "row row"]) -> Float[Tensor, ""]:
        """Summed over samples."""
        if not len(logits):
            return logits.sum()  # 0, but attached to the graph: all ranks must run the backward pass
        if self.loss == "siglip":
            return -logsigmoid(torch.where(positive, logits, -logits)).sum()
        # Uniform over the positives of each row. The matrix is symmetric, so the columns have the same target.
        target = (positive / positive.sum(1, keepdim=True)).to(logits)
        both_ways = cross_entropy(logits, target, reduction="sum") + cross_entropy(logits.T, target, reduction="sum")
        return both_ways * (0.5 if self.half else 1.0)


def _embeddings(outputs: Outputs, pair: _Pair, rows: Int[Tensor, " row"]) -> list[Float[Tensor, "row dim"]]:
    """The embeddings of both modalities, at least in fp32. One that no sample has need not be in the outputs."""
    both = [outputs.embeddings.get(modality) for modality in (pair.a, pair.b)]
    placeholder = next((x for x in both if x is not None), torch.zeros(0, 1, device=rows.device))
    return [at_least_fp32((placeholder if x is None else x)[rows]) for x in both]


def _find_aux(outputs: Outputs, name: str, pair: _Pair) -> Tensor | None:
    """The model's scalar for this pair, in either order, else the one for all pairs."""
    for key in (f"{name}/{pair.a}-{pair.b}", f"{name}/{pair.b}-{pair.a}", name):
        if key in outputs.aux:
            return outputs.aux[key]
    return None


def _aux(outputs: Outputs, name: str, pair: _Pair) -> Tensor:
    value = _find_aux(outputs, name, pair)
    if value is None:
        raise ConfigError(
            f"wanted a {name} for {pair.name} from the model, found {sorted(outputs.aux)}; use a model with one for "
            "each pair, or one for all"
        )
    return value


def _hits(scores: Matrix, positive: Bool[Tensor, "row row"]) -> Float[Tensor, ""]:
    """In how many rows the largest score is that of a positive."""
    return positive.gather(1, scores.argmax(1, keepdim=True)).float().sum()
