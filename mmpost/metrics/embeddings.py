"""Evaluations of a model that embeds: classes, retrieval, similar samples, outliers, wrong labels, a map.

Each writes what it finds of a sample into its last reply, or into an empty one that it adds: a class or names as text,
numbers as scores. So they are logged, resampled and drawn as replies are. What is fitted, is fitted on `fit`, never on
the samples that are judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from mmpost.errors import ConfigError
from mmpost.types import Context, Part, Reply, Sample, Source

Rows = Float64[np.ndarray, "sample dim"]
Known = Float64[np.ndarray, "known dim"]
Labels = Int[np.ndarray, " known"]
X = TypeVar("X", bound=Float[np.ndarray, "*axis dim"])


def with_scores(sample: Sample, scores: Mapping[str, float], text: str | None = None) -> Sample:
    """The sample with more scores, and another text, on its last reply."""
    *others, last = sample.replies or (Reply((), "policy"),)
    parts = last.parts if text is None else (Part("text", text, "assistant"),)
    return replace(sample, replies=(*others, replace(last, parts=parts, scores={**last.scores, **scores})))


def unit(x: X) -> X:
    """Rows of length 1; zeros stay."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)  # type: ignore[return-value]


def vectors(
    samples: Sequence[Sample], context: Context, kinds: Sequence[str]
) -> tuple[Rows, Bool[np.ndarray, " sample"]]:
    """The normalised average of the embeddings of `kinds` that each sample has, and whether it has any."""
    found = context.embed(samples)
    return averaged([{k: v.double().numpy() for k, v in row.items()} for row in found], kinds)


def averaged(
    rows: Sequence[Mapping[str, np.ndarray]], kinds: Sequence[str]
) -> tuple[Rows, Bool[np.ndarray, " sample"]]:
    """As `vectors`, of embeddings at hand. Raises ConfigError where none of the rows has any of the kinds."""
    chosen = [[row[kind] for kind in kinds if kind in row] for row in rows]
    size = next((own[0].shape[0] for own in chosen if own), 0)
    if rows and not size:
        raise ConfigError(
            f"wanted embeddings of {', '.join(kinds)}, found none among {len(rows)} samples; correct `kinds`"
        )
    means = np.array([np.mean(own, axis=0) if own else np.zeros(size) for own in chosen]).reshape(len(rows), size)
    return unit(means.astype(np.float64)), np.array([bool(own) for own in chosen], bool)


def everywhere(rows: Rows, context: Context) -> Float64[np.ndarray, "everyone dim"]:
    """The rows of all ranks; every rank must call it."""
    sizes = context.gather([float(rows.shape[1])])
    flat = np.array(context.gather(rows.ravel().tolist()))
    return flat.reshape(-1, int(max(sizes)) or 1)


@dataclass(frozen=True)
class Fitted:
    """Vectors of samples with a known label: a base of what is fitted."""

    fit: Source
    classes: tuple[str, ...]
    """Names by number."""
    kinds: tuple[str, ...]
    """Whose embeddings are averaged."""
    label: str = "label"
    """The column of samples with the class; below 0: unknown."""
    most: int = 2048
    """Samples of `fit` at most, spread evenly."""

    def known(self, context: Context) -> tuple[Known, Labels, list[Sample]]:
        """Vectors, labels and samples of what is fitted on."""
        count = min(self.most, len(self.fit))
        samples = [self.fit[i * len(self.fit) // count] for i in range(count)]
        rows, there = vectors(samples, context, self.kinds)
        labels = np.array([s.columns.get(self.label, -1.0) for s in samples]).astype(int)
        use = there & (labels >= 0)
        if not use.any():
            raise ConfigError(f"wanted labelled samples to fit on, found none with the column {self.label!r}")
        return rows[use], labels[use], [s for s, keep in zip(samples, use, strict=True) if keep]


def labelled(sample: Sample, label: str) -> bool:
    """Whether the class of a sample is known: there, not NaN, not below 0."""
    value = sample.columns.get(label, -1.0)
    return isinstance(value, int | float) and value >= 0


def centroids(rows: Known, labels: Labels, n: int) -> Float64[np.ndarray, "class dim"]:
    """The normalised mean of the vectors of each class; NaN for a class without any."""
    empty = np.full(rows.shape[1], np.nan)
    return np.array([unit(rows[labels == c].sum(0)) if (labels == c).any() else empty for c in range(n)])


def cosines(rows: Rows, middle: Float64[np.ndarray, "class dim"]) -> Float64[np.ndarray, "sample class"]:
    """To each centroid; -1, which nothing undercuts, to one of a class without any vector."""
    return np.where(np.isnan(middle).any(1), -1.0, rows @ np.nan_to_num(middle).T)


@dataclass(frozen=True)
class ClassOf(Fitted):
    """The class of each sample by its vector: nearest centroid, `k` nearest neighbours, or logistic regression.

    Text: the class; score "right". A sample without any of the kinds, or without a known class, gets neither.
    """

    how: Literal["centroid", "neighbours", "linear"] = "centroid"
    k: int = 5

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        known, labels, _ = self.known(context)
        rows, there = vectors(samples, context, self.kinds)
        guesses = self._guesses(known, labels, rows)
        return [
            decided(s, self.classes[guess], self.classes[int(s.columns[self.label])])
            if here and labelled(s, self.label)
            else s
            for s, guess, here in zip(samples, guesses, there, strict=True)
        ]

    def _guesses(self, known: Known, labels: Labels, rows: Rows) -> Sequence[int]:
        if self.how == "centroid":
            return cosines(rows, centroids(known, labels, len(self.classes))).argmax(1).tolist()
        if self.how == "neighbours":
            from sklearn.neighbors import KNeighborsClassifier

            return (
                KNeighborsClassifier(min(self.k, len(known)), metric="cosine").fit(known, labels).predict(rows).tolist()
            )
        from sklearn.linear_model import LogisticRegression

        if len(np.unique(labels)) < 2:
            return [int(labels[0])] * len(rows)
        return LogisticRegression(max_iter=1000, C=10.0).fit(known, labels).predict(rows).tolist()


@dataclass(frozen=True)
class ClassBy:
    """The class of each sample by the model's own head, the most likely one; score "right".

    A model without a head judges none; a sample without any of `kinds`, or without a known class, is not judged.
    """

    classes: tuple[str, ...]
    kinds: tuple[str, ...]
    """What the head reads."""
    label: str = "label"

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        logits = context.class_logits(samples)
        if not logits.shape[1]:
            return samples
        if len(samples) and logits.shape[1] != len(self.classes):
            raise ConfigError(f"wanted a head of {len(self.classes)} classes, found one of {logits.shape[1]}")
        guesses = logits.argmax(1).tolist() if samples else []
        return [
            decided(s, self.classes[guess], self.classes[int(s.columns[self.label])])
            if labelled(s, self.label) and any(part.modality in self.kinds for part in s.prompt)
            else s
            for s, guess in zip(samples, guesses, strict=True)
        ]


def decided(sample: Sample, guess: str, wanted: str) -> Sample:
    """The sample with a class as its reply."""
    return with_scores(sample, {"right": float(guess == wanted)}, guess)


@dataclass(frozen=True)
class Retrieve:
    """For each pair of kinds, both ways: how many samples are nearer than the sample's own other half.

    Scores "rank/a>b", 0 where its own is the nearest; among the samples of all ranks that have the other kind. One that
    is as near counts half, so that embeddings which are all alike are at chance; where numbers are NaN, all count.
    """

    kinds: tuple[str, ...]

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        found = context.embed(samples)
        scores: list[dict[str, float]] = [{} for _ in samples]
        for b in self.kinds:
            own = {i: row[b].double().numpy() for i, row in enumerate(found) if b in row}
            size = next(iter(own.values())).shape[0] if own else 0
            keys = everywhere(np.array(list(own.values())).reshape(len(own), size), context)
            for a in self.kinds:
                both = [i for i in own if a in found[i]]
                if a == b or not both:
                    continue
                asked = np.array([found[i][a].double().numpy() for i in both])
                right = (asked * np.array([own[i] for i in both])).sum(1)
                ahead = asked @ keys.T - right[:, None]
                # The own half is among the ties.
                ranks = (ahead > 1e-9).sum(1) + ((np.abs(ahead) <= 1e-9).sum(1) - 1) / 2
                for i, rank in zip(both, np.where(np.isnan(right), len(keys) - 1, ranks), strict=True):
                    scores[i][f"rank/{a}>{b}"] = float(rank)
        return [with_scores(s, own_scores) for s, own_scores in zip(samples, scores, strict=True)]


@dataclass(frozen=True)
class NearestSimilar(Fitted):
    """The `k` samples of `fit` that are nearest by cosine. Text: their uids; score: the share of the same class."""

    k: int = 5

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        known, labels, base = self.known(context)
        rows, there = vectors(samples, context, self.kinds)
        near = np.argsort(-(rows @ known.T), axis=1, kind="stable")[:, : self.k]
        made = []
        for sample, places, here in zip(samples, near, there, strict=True):
            if here:
                same = float((labels[places] == sample.columns.get(self.label, -1.0)).mean())
                sample = with_scores(sample, {"same": same}, " ".join(base[i].uid for i in places))
            made.append(sample)
        return made


@dataclass(frozen=True)
class OutlierScore(Fitted):
    """How far a sample lies from the centroid of its own label, and whether another one is nearer (AstroM3).

    Scores "outlier", 1 - cosine to the own centroid; "suspect", 1 where another centroid is nearer. The columns of
    samples named in `planted` become scores, so that a summary can hold both against what was planted.
    """

    planted: tuple[str, ...] = ()

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        known, labels, _ = self.known(context)
        middle = centroids(known, labels, len(self.classes))
        rows, there = vectors(samples, context, self.kinds)
        made = []
        for sample, cosine, here in zip(samples, cosines(rows, middle), there, strict=True):
            if here and labelled(sample, self.label):
                own = int(sample.columns[self.label])
                scores = {"outlier": float(1 - cosine[own]), "suspect": float(cosine.argmax() != own)}
                scores |= {name: float(sample.columns.get(name, 0.0)) for name in self.planted}
                sample = with_scores(sample, scores, self.classes[int(cosine.argmax())])
            made.append(sample)
        return made


@dataclass(frozen=True)
class Map:
    """Two coordinates for each sample, the principal components of the vectors of all: scores "map/x" and "map/y".

    A report draws any evaluation that has them, coloured by truth.
    """

    kinds: tuple[str, ...]

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        from sklearn.decomposition import PCA

        rows, there = vectors(samples, context, self.kinds)
        everything = everywhere(rows[there], context)
        if min(everything.shape) < 2:
            return samples
        places = PCA(2, random_state=0).fit(everything).transform(rows) if len(rows) else np.zeros((0, 2))
        return [
            with_scores(s, {"map/x": float(x), "map/y": float(y)}) if here else s
            for s, (x, y), here in zip(samples, places, there, strict=True)
        ]
