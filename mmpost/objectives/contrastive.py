"""Contrastive learning of any number of modalities: every pair of kinds pulls the embeddings of one sample together."""

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

from mmpost.core.numerics import at_least_fp32
from mmpost.errors import ConfigError
from mmpost.types import Batch, Loss, Objective, Outputs

Matrix = Float[Tensor, "row row"]


@dataclass(frozen=True)
class _Pair:
    """Two kinds whose embeddings are compared."""

    a: str
    b: str
    weight: float

    @property
    def name(self) -> str:
        return f"{self.a}-{self.b}"


class Contrastive(Objective):
    """InfoNCE (or SigLIP) over pairs of modalities, on the embeddings of the whole step.

    The loss of a pair is the mean over the samples that have both kinds, as queries and as keys, of
    (CE of the rows + CE of the columns) / 2, with logits exp(log_scale) x y^T + bias; of SigLIP the sum over the matrix
    of -ln sigmoid(+-logit), over the number of samples. Embeddings come normalised from the model, and so do scales and
    biases (`Outputs.aux`: "log_scale/a-b", or "log_scale" for all pairs; "bias/a-b" or "bias", none without them).
    A sample drawn twice is its own positive. Logits and losses are fp32.
    """

    unit: ClassVar[Literal["reply", "group", "batch"]] = "batch"

    modalities: tuple[str, ...]
    """The kinds of media that are compared, at least two."""
    loss: Literal["infonce", "siglip"] = "infonce"
    """Softmax over the batch, or a yes or no for each cell of the matrix."""
    pairs: Literal["all", "star"] = "all"
    """Every pair of kinds, or each kind with the anchor."""
    anchor: str = ""
    """The kind in the middle of the star; empty: the first."""
    weights: dict[str, float] = {}
    """Weights of pairs, by "a-b" in either order; 1 for the others, 0 leaves a pair out."""
    half: bool = True
    """Half the sum of rows and columns (CLIP), or the sum (AstroM3); SigLIP has but one sum."""
    reduce: Literal["mean", "sum"] = "mean"
    """Over pairs: a mean, weighted also by the samples that have both kinds, or the sum (AstroM3)."""
    positives: str = ""
    """A column of samples: those with the same number are each other's positives too (a label, an object).
    Whole numbers below 2^24; below 0: unknown."""

    @model_validator(mode="after")
    def _fits(self) -> Contrastive:
        if len(self.modalities) < 2 or len(set(self.modalities)) < len(self.modalities):
            raise ValueError(f"kinds: at least two different kinds of media are wanted, found {list(self.modalities)}")
        if self.anchor and (self.pairs == "all" or self.anchor not in self.modalities):
            raise ValueError(f"anchor={self.anchor} wants pairs=star, and a name of kinds={list(self.modalities)}")
        names = {name for a, b in self._combinations() for name in (f"{a}-{b}", f"{b}-{a}")}
        unknown = sorted(set(self.weights) - names)
        if unknown or any(w < 0 for w in self.weights.values()) or not self._pairs():
            raise ValueError(
                f"weights={self.weights}: numbers of at least 0, not all 0, for these pairs are wanted: "
                f"{', '.join(f'{a}-{b}' for a, b in self._combinations())}"
            )
        return self

    def _combinations(self) -> list[tuple[str, str]]:
        if self.pairs == "all":
            return list(itertools.combinations(self.modalities, 2))
        middle = self.anchor or self.modalities[0]
        return [(middle, kind) for kind in self.modalities if kind != middle]

    def _pairs(self) -> list[_Pair]:
        found = [
            _Pair(a, b, self.weights.get(f"{a}-{b}", self.weights.get(f"{b}-{a}", 1.0)))
            for a, b in self._combinations()
        ]
        return [pair for pair in found if pair.weight]

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
        return {"contrastive": sum(self._share(pair) * sizes[pair.name] for pair in self._pairs())}

    def _share(self, pair: _Pair) -> float:
        """The pair's weight in the mean; the lightest has 1, so that a count is never less than one sample's."""
        return pair.weight / min(p.weight for p in self._pairs())

    def _both(self, batch: Batch, pair: _Pair) -> Int[Tensor, " row"]:
        """The samples that have both kinds; none where they are too few to be compared."""
        found = (batch.has(pair.a) & batch.has(pair.b)).nonzero()[:, 0]
        return found if len(found) >= (2 if self.loss == "infonce" else 1) else found[:0]

    def __call__(self, outputs: Outputs, batch: Batch) -> Loss:
        lack = [kind for kind in self.modalities if kind not in outputs.embeddings and bool(batch.has(kind).any())]
        if lack:
            raise ConfigError(
                f"the objective compares {list(self.modalities)}, the model embeds {sorted(outputs.embeddings)}: "
                f"give it an encoder for {lack[0]}, or leave that out of `modalities`"
            )
        same = self._same(batch)
        terms: dict[str, Tensor] = {}
        metrics: dict[str, tuple[Tensor | float, Tensor | float]] = {}
        guesses = batch.sample_ids.new_zeros(batch.samples, batch.samples, dtype=torch.float32)
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
                guess = logits.detach().softmax(1) / 2 + logits.detach().softmax(0) / 2
                metrics[f"accuracy/{pair.name}"] = (_hits(guess, positive), float(len(both)))
                guesses[both[:, None], both] += guess.float()
        whole = torch.stack([batch.has(kind) for kind in self.modalities]).all(0).nonzero()[:, 0]
        if len(whole):
            metrics["accuracy"] = (_hits(guesses[whole][:, whole], same[whole][:, whole]), float(len(whole)))
        if self.reduce == "sum":
            return Loss({pair.name: pair.weight * terms[pair.name] for pair in self._pairs()}, metrics)
        total = torch.stack([self._share(pair) * terms[pair.name] for pair in self._pairs()]).sum()
        return Loss({"contrastive": total}, metrics)

    def _same(self, batch: Batch) -> Bool[Tensor, "sample sample"]:
        """Which samples are positives of which: each of itself, those with one uid, those with one number."""
        same = batch.sample_ids[:, None] == batch.sample_ids
        if self.positives:
            column = batch.sample(self.positives)
            same = same | ((column[:, None] == column) & (column >= 0))
        return same

    def _logits(self, outputs: Outputs, pair: _Pair, both: Int[Tensor, " row"]) -> Matrix:
        x, y = _of(outputs, pair, both)
        logits = at_least_fp32(_aux(outputs, "log_scale", pair)).exp() * (x @ y.T)
        bias = _found(outputs, "bias", pair)
        return logits if bias is None else logits + at_least_fp32(bias)

    def _loss(self, logits: Matrix, positive: Bool[Tensor, "row row"]) -> Float[Tensor, ""]:
        """The sum over samples."""
        if not len(logits):
            return logits.sum()
        if self.loss == "siglip":
            return -logsigmoid(torch.where(positive, logits, -logits)).sum()
        # Uniform over the positives of each row; the matrix of positives is its own transpose.
        target = (positive / positive.sum(1, keepdim=True)).to(logits)
        both_ways = cross_entropy(logits, target, reduction="sum") + cross_entropy(logits.T, target, reduction="sum")
        return both_ways * (0.5 if self.half else 1.0)


def _of(outputs: Outputs, pair: _Pair, rows: Int[Tensor, " row"]) -> list[Float[Tensor, "row dim"]]:
    """The two embeddings, at least in fp32. A kind that no sample has need not be in the outputs."""
    found = [outputs.embeddings.get(kind) for kind in (pair.a, pair.b)]
    like = next((x for x in found if x is not None), torch.zeros(0, 1, device=rows.device))
    return [at_least_fp32((like if x is None else x)[rows]) for x in found]


def _found(outputs: Outputs, name: str, pair: _Pair) -> Tensor | None:
    """The model's scalar for the pair, in either order, else that for all pairs."""
    for key in (f"{name}/{pair.a}-{pair.b}", f"{name}/{pair.b}-{pair.a}", name):
        if key in outputs.aux:
            return outputs.aux[key]
    return None


def _aux(outputs: Outputs, name: str, pair: _Pair) -> Tensor:
    found = _found(outputs, name, pair)
    if found is None:
        raise ConfigError(
            f"wanted a {name} for {pair.name} from the model, found {sorted(outputs.aux)}: take a model that has one "
            "for each pair, or one for all"
        )
    return found


def _hits(guess: Matrix, positive: Bool[Tensor, "row row"]) -> Float[Tensor, ""]:
    """How many rows have their largest share at a positive."""
    return positive.gather(1, guess.argmax(1, keepdim=True)).float().sum()
