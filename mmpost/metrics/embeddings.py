"""Evaluations of embedding models: classification, retrieval, nearest neighbors, outliers, wrong labels, projection.

Each is a transform that writes its result for a sample to the sample's last reply, adding an empty one if there is
none: a class or uids as text, numbers as scores. So results are logged, bootstrapped and plotted like replies. Models
are fitted on `fit`, never on the evaluated samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from mmpost.errors import ConfigError
from mmpost.types import Context, Part, Reply, Sample, Source, Transform

Rows = Float64[np.ndarray, "sample dim"]
FitRows = Float64[np.ndarray, "fit dim"]
FitLabels = Int[np.ndarray, " fit"]
X = TypeVar("X", bound=Float[np.ndarray, "*axis dim"])


def with_scores(sample: Sample, scores: Mapping[str, float], text: str | None = None) -> Sample:
    """The sample with `scores` added to its last reply and, unless None, `text` in place of the reply's text."""
    *others, last = sample.replies or (Reply((), "policy"),)
    parts = last.parts if text is None else (Part("text", text, "assistant"),)
    return replace(sample, replies=(*others, replace(last, parts=parts, scores={**last.scores, **scores})))


def l2_normalize(x: X) -> X:
    """`x` with its last axis scaled to length 1; zeros stay zeros."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)  # type: ignore[return-value]


def embed_samples(
    samples: Sequence[Sample], context: Context, modalities: Sequence[str]
) -> tuple[Rows, Bool[np.ndarray, " sample"]]:
    """Each sample's embeddings averaged over those of `modalities` that it has, normalized, and a mask of the samples
    that have any. Rows of the others are zero.
    """
    embeddings = context.embed(samples)
    return average_modalities([{k: v.double().numpy() for k, v in row.items()} for row in embeddings], modalities)


def average_modalities(
    embeddings: Sequence[Mapping[str, np.ndarray]], modalities: Sequence[str]
) -> tuple[Rows, Bool[np.ndarray, " sample"]]:
    """Like `embed_samples`, for given embeddings. Raises ConfigError if no sample has any of the modalities."""
    selected = [[row[modality] for modality in modalities if modality in row] for row in embeddings]
    dim = next((vectors[0].shape[0] for vectors in selected if vectors), 0)
    if embeddings and not dim:
        raise ConfigError(
            f"wanted embeddings of {', '.join(modalities)}, found none among {len(embeddings)} samples; correct "
            "`modalities`"
        )
    means = np.array([np.mean(vectors, axis=0) if vectors else np.zeros(dim) for vectors in selected])
    means = means.reshape(len(embeddings), dim)
    return l2_normalize(means.astype(np.float64)), np.array([bool(vectors) for vectors in selected], bool)


def gather_rows(rows: Rows, context: Context) -> Float64[np.ndarray, "all_samples dim"]:
    """The rows of all ranks, in rank order. Every rank must call it, even with no rows."""
    # A rank without rows may not know the dimension, so it takes the largest that any rank has.
    sizes = context.gather([float(rows.shape[1])])
    flat = np.array(context.gather(rows.ravel().tolist()))
    return flat.reshape(-1, int(max(sizes)) or 1)


@dataclass(frozen=True)
class FittedEvaluation(Transform):
    """Base of evaluations that are fitted on the embeddings of labeled samples."""

    fit: Source
    """The samples to fit on."""
    classes: tuple[str, ...]
    """Class names; a label is an index into them."""
    modalities: tuple[str, ...]
    """The modalities whose embeddings are averaged."""
    label: str = "label"
    """The sample column with the label; below 0 means unknown."""
    max_fit_samples: int = 2048
    """Maximum number of samples of `fit` to use, spread evenly."""

    def fit_set(self, context: Context) -> tuple[FitRows, FitLabels, list[Sample]]:
        """Embeddings, labels and samples to fit on. Raises ConfigError if no sample has both label and embedding."""
        count = min(self.max_fit_samples, len(self.fit))
        samples = [self.fit[i * len(self.fit) // count] for i in range(count)]
        rows, has_embedding = embed_samples(samples, context, self.modalities)
        labels = np.array([s.columns.get(self.label, -1.0) for s in samples]).astype(int)
        usable = has_embedding & (labels >= 0)
        if not usable.any():
            raise ConfigError(f"wanted labeled samples to fit on, found none with the column {self.label!r}")
        return rows[usable], labels[usable], [s for s, use in zip(samples, usable, strict=True) if use]


def has_label(sample: Sample, label: str) -> bool:
    """Whether the sample's class is known: the column exists, is not NaN and not below 0."""
    value = sample.columns.get(label, -1.0)
    return isinstance(value, int | float) and value >= 0


def class_centroids(rows: FitRows, labels: FitLabels, num_classes: int) -> Float64[np.ndarray, "class dim"]:
    """The normalized mean of each class's embeddings; NaN for a class without any."""
    empty = np.full(rows.shape[1], np.nan)
    return np.array(
        [l2_normalize(rows[labels == c].sum(0)) if (labels == c).any() else empty for c in range(num_classes)]
    )


def centroid_similarities(
    rows: Rows, centroids: Float64[np.ndarray, "class dim"]
) -> Float64[np.ndarray, "sample class"]:
    """Cosine similarity to each centroid; -1, the minimum, to the NaN centroid of a class without embeddings."""
    return np.where(np.isnan(centroids).any(1), -1.0, rows @ np.nan_to_num(centroids).T)


@dataclass(frozen=True)
class EmbeddingClassifier(FittedEvaluation):
    """Classifies samples by their embeddings: nearest centroid, `k` nearest neighbors, or logistic regression.

    Writes the class as text and the score "right". Skips samples without any of the modalities or without a label.
    """

    method: Literal["centroid", "neighbors", "linear"] = "centroid"
    k: int = 5
    """Number of neighbors for method="neighbors"."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        fit_rows, fit_labels, _ = self.fit_set(context)
        rows, has_embedding = embed_samples(samples, context, self.modalities)
        predictions = self._predict(fit_rows, fit_labels, rows)
        return [
            with_prediction(s, self.classes[prediction], self.classes[int(s.columns[self.label])])
            if usable and has_label(s, self.label)
            else s
            for s, prediction, usable in zip(samples, predictions, has_embedding, strict=True)
        ]

    def _predict(self, fit_rows: FitRows, fit_labels: FitLabels, rows: Rows) -> Sequence[int]:
        if self.method == "centroid":
            centroids = class_centroids(fit_rows, fit_labels, len(self.classes))
            return centroid_similarities(rows, centroids).argmax(1).tolist()
        if self.method == "neighbors":
            from sklearn.neighbors import KNeighborsClassifier

            classifier = KNeighborsClassifier(min(self.k, len(fit_rows)), metric="cosine")
            return classifier.fit(fit_rows, fit_labels).predict(rows).tolist()
        from sklearn.linear_model import LogisticRegression

        if len(np.unique(fit_labels)) < 2:  # scikit-learn refuses to fit a single class
            return [int(fit_labels[0])] * len(rows)
        return LogisticRegression(max_iter=1000, C=10.0).fit(fit_rows, fit_labels).predict(rows).tolist()


@dataclass(frozen=True)
class HeadClassifier(Transform):
    """Classifies samples with the model's classification head. Writes the class as text and the score "right".

    Without a head it does nothing. Skips samples without any of `modalities` or without a label.
    """

    classes: tuple[str, ...]
    """Class names; a label is an index into them."""
    modalities: tuple[str, ...]
    """The modalities that the head reads."""
    label: str = "label"
    """The sample column with the label; below 0 means unknown."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        logits = context.class_logits(samples)
        if not logits.shape[1]:
            return samples
        if len(samples) and logits.shape[1] != len(self.classes):
            raise ConfigError(f"wanted a head of {len(self.classes)} classes, found one of {logits.shape[1]}")
        predictions = logits.argmax(1).tolist() if samples else []
        return [
            with_prediction(s, self.classes[prediction], self.classes[int(s.columns[self.label])])
            if has_label(s, self.label) and any(part.modality in self.modalities for part in s.prompt)
            else s
            for s, prediction in zip(samples, predictions, strict=True)
        ]


def with_prediction(sample: Sample, predicted: str, label: str) -> Sample:
    """The sample with a predicted class as its reply's text, and the score "right"."""
    return with_scores(sample, {"right": float(predicted == label)}, predicted)


@dataclass(frozen=True)
class CrossModalRetrieval(Transform):
    """Ranks a sample's embedding of one modality among those of all samples, for each ordered pair of modalities.

    Writes scores "rank/a>b": how many samples' embeddings of b are closer to this sample's a than its own b is, over
    the samples of all ranks that have b; 0 is best. A tie counts half, so collapsed embeddings rank at chance. With NaN
    embeddings the sample ranks last.
    """

    modalities: tuple[str, ...]

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        embeddings = context.embed(samples)
        scores: list[dict[str, float]] = [{} for _ in samples]
        for b in self.modalities:
            targets = {i: row[b].double().numpy() for i, row in enumerate(embeddings) if b in row}
            dim = next(iter(targets.values())).shape[0] if targets else 0
            keys = gather_rows(np.array(list(targets.values())).reshape(len(targets), dim), context)
            for a in self.modalities:
                has_both = [i for i in targets if a in embeddings[i]]
                if a == b or not has_both:
                    continue
                queries = np.array([embeddings[i][a].double().numpy() for i in has_both])
                own_similarity = (queries * np.array([targets[i] for i in has_both])).sum(1)
                margins = queries @ keys.T - own_similarity[:, None]
                # A sample's own target is among the keys and ties with itself.
                ranks = (margins > 1e-9).sum(1) + ((np.abs(margins) <= 1e-9).sum(1) - 1) / 2
                for i, rank in zip(has_both, np.where(np.isnan(own_similarity), len(keys) - 1, ranks), strict=True):
                    scores[i][f"rank/{a}>{b}"] = float(rank)
        return [with_scores(s, sample_scores) for s, sample_scores in zip(samples, scores, strict=True)]


@dataclass(frozen=True)
class NearestNeighbors(FittedEvaluation):
    """The `k` samples of `fit` with the highest cosine similarity. Writes their uids as text, and as score "same" the
    fraction of them that have the sample's class.
    """

    k: int = 5

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        fit_rows, fit_labels, fit_samples = self.fit_set(context)
        rows, has_embedding = embed_samples(samples, context, self.modalities)
        nearest = np.argsort(-(rows @ fit_rows.T), axis=1, kind="stable")[:, : self.k]
        scored = []
        for sample, neighbors, usable in zip(samples, nearest, has_embedding, strict=True):
            if usable:
                same = float((fit_labels[neighbors] == sample.columns.get(self.label, -1.0)).mean())
                sample = with_scores(sample, {"same": same}, " ".join(fit_samples[i].uid for i in neighbors))
            scored.append(sample)
        return scored


@dataclass(frozen=True)
class OutlierScore(FittedEvaluation):
    """Distance of a sample to the centroid of its label, and whether another centroid is closer (AstroM3).

    Writes the nearest class as text, and the scores "outlier" (1 - cosine similarity to the label's centroid) and
    "suspect" (1 if another centroid is closer, which hints at a wrong label). Also copies the sample columns in
    `ground_truth` to scores, for summaries that compare predictions with known anomalies.
    """

    ground_truth: tuple[str, ...] = ()

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        fit_rows, fit_labels, _ = self.fit_set(context)
        centroids = class_centroids(fit_rows, fit_labels, len(self.classes))
        rows, has_embedding = embed_samples(samples, context, self.modalities)
        scored = []
        similarities = centroid_similarities(rows, centroids)
        for sample, similarity, usable in zip(samples, similarities, has_embedding, strict=True):
            if usable and has_label(sample, self.label):
                label = int(sample.columns[self.label])
                scores = {"outlier": float(1 - similarity[label]), "suspect": float(similarity.argmax() != label)}
                scores |= {name: float(sample.columns.get(name, 0.0)) for name in self.ground_truth}
                sample = with_scores(sample, scores, self.classes[int(similarity.argmax())])
            scored.append(sample)
        return scored


@dataclass(frozen=True)
class PcaProjection(Transform):
    """Projects the embeddings of all ranks' samples to 2-D by PCA; writes scores "map/x" and "map/y".

    Reports plot every evaluation that has these scores, colored by truth.
    """

    modalities: tuple[str, ...]

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        from sklearn.decomposition import PCA

        rows, has_embedding = embed_samples(samples, context, self.modalities)
        all_rows = gather_rows(rows[has_embedding], context)
        if min(all_rows.shape) < 2:
            return samples
        points = PCA(2, random_state=0).fit(all_rows).transform(rows) if len(rows) else np.zeros((0, 2))
        return [
            with_scores(s, {"map/x": float(x), "map/y": float(y)}) if usable else s
            for s, (x, y), usable in zip(samples, points, has_embedding, strict=True)
        ]
