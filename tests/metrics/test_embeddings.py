"""Evaluations of embeddings on constructed vectors, with planted anomalies and wrong labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from mmpost.errors import ConfigError
from mmpost.metrics.embeddings import (
    CrossModalRetrieval,
    EmbeddingClassifier,
    HeadClassifier,
    NearestNeighbors,
    OutlierScore,
    PcaProjection,
    average_modalities,
)
from mmpost.metrics.summaries import anomaly_detection, class_accuracy, neighbor_precision, retrieval_recall
from mmpost.types import Part, Reply, Sample
from tests.transforms.fakes import FakeContext

NAMES = ("a", "b", "c")


class EmbeddingContext(FakeContext):
    """Returns the embeddings and class logits stored in the meta of the samples."""

    def embed(self, samples: Sequence[Sample]) -> list[dict[str, Tensor]]:
        return [{k: torch.tensor(v).float() for k, v in s.meta["at"].items()} for s in samples]

    def class_logits(self, samples: Sequence[Sample]) -> Tensor:
        return torch.tensor([s.meta["logits"] for s in samples])


def sample(uid: str, label: int, truth: int | None = None, odd: float = 0.0, **embeddings: Sequence[float]) -> Sample:
    wrong = truth is not None and truth != label
    columns = {"label": float(label), "odd": odd, "wrong": float(wrong)}
    vectors = {modality: (np.array(v) / np.linalg.norm(v)).tolist() for modality, v in embeddings.items()}
    return Sample(
        uid,
        tuple(Part(modality, None) for modality in embeddings),
        truth=NAMES[label if truth is None else truth],
        meta={"at": vectors},
        columns=columns,
    )


def cloud(n: int, seed: int, spread: float = 0.15) -> list[Sample]:
    """Samples clustered around three axes, with two modalities each."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(n):
        label = i % 3
        x, y = (np.eye(3)[label] + rng.normal(0, spread, 3) for _ in range(2))
        samples.append(sample(f"{seed}-{i}", label, x=x.tolist(), y=y.tolist()))
    return samples


@pytest.mark.parametrize("method", ["centroid", "neighbors", "linear"])
def test_classification_by_embeddings(method: Literal["centroid", "neighbors", "linear"]) -> None:
    classifier = EmbeddingClassifier(cloud(60, 0), NAMES, ("x", "y"), method=method)
    scored = classifier(cloud(30, 1), EmbeddingContext())
    assert class_accuracy(scored) == {"accuracy": 100.0, "balanced": 100.0}
    assert scored[1].replies[-1].text == "b"


def test_accuracy_and_balanced_accuracy() -> None:
    rows = [sample(str(i + 1), label, x=[1, 0, 0]) for i, label in enumerate((0, 0, 0, 1))]
    logits = [[2.0, 0, 0], [2.0, 0, 0], [0, 0, 2.0], [0, 2.0, 0]]
    samples = [replace(s, meta={**s.meta, "logits": row}) for s, row in zip(rows, logits, strict=True)]
    scored = HeadClassifier(NAMES, ("x",))(samples, EmbeddingContext())
    assert [s.replies[0].text for s in scored] == ["a", "a", "c", "b"]
    assert class_accuracy(scored) == {"accuracy": 75.0, "balanced": pytest.approx(100 * (2 / 3 + 1) / 2)}
    with pytest.raises(ConfigError, match="head of 2 classes, found one of 3"):
        HeadClassifier(NAMES[:2], ("x",))(samples, EmbeddingContext())
    assert math.isnan(class_accuracy(rows)["accuracy"])


def test_samples_without_the_modalities_are_not_classified() -> None:
    lone = replace(sample("1", 0), meta={"at": {"y": [0.0, 1.0, 0.0]}})
    scored = EmbeddingClassifier(cloud(30, 0), NAMES, ("x",))([*cloud(3, 1), lone], EmbeddingContext())
    assert [len(s.replies) for s in scored] == [1, 1, 1, 0]
    with pytest.raises(ConfigError, match="wanted embeddings of z, found none"):
        EmbeddingClassifier(cloud(30, 0), NAMES, ("z",))(cloud(3, 1), EmbeddingContext())


def test_samples_of_unknown_class_are_not_classified() -> None:
    unknown = [replace(s, columns={"label": label}) for s, label in zip(cloud(2, 1), (-1.0, math.nan), strict=True)]
    other_modality = replace(cloud(1, 1)[0], prompt=(Part("z", None),))
    samples = [replace(s, meta={**s.meta, "logits": [1.0, 0.0, 0.0]}) for s in [*unknown, other_modality]]
    fit = cloud(30, 0)
    assert HeadClassifier(NAMES, ("x", "y"))(samples, EmbeddingContext()) == samples
    for transform in (EmbeddingClassifier(fit, NAMES, ("x",)), OutlierScore(fit, NAMES, ("x",))):
        assert transform(samples[:2], EmbeddingContext()) == samples[:2]


def test_a_class_without_fitted_samples_is_never_predicted() -> None:
    fit = [sample("1", 0, x=[1, 0, 0]), sample("2", 1, x=[0, 1, 0])]
    far = sample("3", 1, x=[-1, -0.2, 0])
    for transform in (EmbeddingClassifier(fit, NAMES, ("x",)), OutlierScore(fit, NAMES, ("x",))):
        assert transform([far], EmbeddingContext())[0].replies[0].text == "b"


def test_missing_modalities_are_left_out_of_the_average() -> None:
    rows, present = average_modalities(
        [{"x": np.array([1.0, 0]), "y": np.array([0, 1.0])}, {"y": np.array([0, 2.0])}, {}], ("x", "y")
    )
    assert rows.tolist() == [pytest.approx([0.5**0.5, 0.5**0.5]), [0, 1], [0, 0]]
    assert present.tolist() == [True, True, False]


def test_cross_modal_ranks() -> None:
    rows = [
        sample("1", 0, x=[1, 0, 0], y=[1, 0.1, 0]),
        sample("2", 0, x=[0, 1, 0], y=[0, 0, 1]),  # the match is ranked last of three
        sample("3", 0, x=[0, 0, 1], y=[0, 1, 0.1]),
    ]
    scored = CrossModalRetrieval(("x", "y"))(rows, EmbeddingContext())
    assert [s.replies[0].scores["rank/x>y"] for s in scored] == [0, 2, 1]
    recall = retrieval_recall(scored, at=(1, 2))
    assert recall["x>y@1"] == pytest.approx(100 / 3)
    assert recall["x>y@2"] == pytest.approx(200 / 3)
    assert recall["recall@1"] == pytest.approx((recall["x>y@1"] + recall["y>x@1"]) / 2)


@pytest.mark.parametrize("collapsed", ["y", "xy"])
def test_collapsed_embeddings_are_at_chance(collapsed: str) -> None:
    rng = np.random.default_rng(0)
    constant = [1.0, 0.0, 0.0]
    vectors = rng.normal(size=(20, 3)).tolist()
    rows = [sample(str(i), 0, x=constant if "x" in collapsed else v, y=constant) for i, v in enumerate(vectors)]
    scored = CrossModalRetrieval(("x", "y"))(rows, EmbeddingContext())
    assert all(s.replies[0].scores["rank/x>y"] == 9.5 for s in scored)
    assert retrieval_recall(scored, at=(1,))["x>y@1"] == 0


def test_nan_embeddings_rank_last() -> None:
    rows = [sample(str(i), 0, x=[math.nan, 0, 0], y=[1, i, 0]) for i in range(5)]
    assert [s.replies[0].scores["rank/x>y"] for s in CrossModalRetrieval(("x", "y"))(rows, EmbeddingContext())] == [
        4.0
    ] * 5


def test_retrieval_ranks_cover_the_samples_of_all_processes() -> None:
    local = [sample("1", 0, x=[1, 0, 0], y=[1, 1, 0])]
    # Per modality: the count, and a vector of another rank that is nearer than the match.
    scored = CrossModalRetrieval(("x", "y"))(
        local, EmbeddingContext(others=[[3.0], [0.7, 0.7, 0.0], [3.0], [1.0, 0.0, 0.0]])
    )
    assert scored[0].replies[0].scores == {"rank/x>y": 1.0, "rank/y>x": 1.0}


def test_similar_samples() -> None:
    base = [sample("near", 0, x=[1, 0.1, 0]), sample("next", 1, x=[1, 0.5, 0]), sample("far", 0, x=[0, 0, 1])]
    scored = NearestNeighbors(base, NAMES, ("x",), k=2)([sample("1", 0, x=[1, 0, 0])], EmbeddingContext())
    assert scored[0].replies[0].text == "near next"
    assert neighbor_precision(scored) == {"precision": 50.0}


def test_planted_anomalies_and_wrong_labels_are_found() -> None:
    rng = np.random.default_rng(5)
    normal = cloud(90, 2)
    odd = [
        sample(f"odd{i}", i % 3, odd=1.0, x=rng.normal(0, 1, 3).tolist(), y=rng.normal(0, 1, 3).tolist())
        for i in range(12)
    ]
    wrong = [
        replace(s, columns={**s.columns, "label": (s.columns["label"] + 1) % 3, "wrong": 1.0}) for s in cloud(9, 3)
    ]
    scored = OutlierScore(cloud(60, 0), NAMES, ("x", "y"), ground_truth=("odd", "wrong"))(
        [*normal, *odd, *wrong], EmbeddingContext()
    )
    metrics = anomaly_detection(scored)
    assert metrics["outlier_auc"] > 0.9
    assert metrics["mislabel_auc"] == 1.0
    assert metrics["mislabel_recall"] == 100.0
    assert 9 / (9 + 12) <= metrics["mislabel_precision"] / 100 <= 1
    assert math.isnan(
        anomaly_detection(OutlierScore(cloud(60, 0), NAMES, ("x",))(normal, EmbeddingContext()))["outlier_auc"]
    )


def test_the_outlier_score_of_the_published_example() -> None:
    base = [sample("1", 0, x=[1, 0]), sample("2", 0, x=[0, 1]), sample("3", 1, x=[-1, 0])]
    scored = OutlierScore(base, NAMES[:2], ("x",))([sample("4", 0, x=[1, 0])], EmbeddingContext())
    assert scored[0].replies[0].scores == {"outlier": pytest.approx(1 - 0.5**0.5), "suspect": 0.0}


def test_the_projection_separates_classes() -> None:
    scored = PcaProjection(("x", "y"))(cloud(60, 4), EmbeddingContext())
    points = np.array([[s.replies[0].scores[f"map/{axis}"] for axis in "xy"] for s in scored])
    labels = np.arange(60) % 3
    centroids = np.array([points[labels == c].mean(0) for c in range(3)])
    nearest = np.linalg.norm(points[:, None] - centroids, axis=2).argmin(1)
    assert (nearest == labels).mean() > 0.95
    assert PcaProjection(("x",))(cloud(1, 4), EmbeddingContext())[0].replies == ()


def test_scores_are_added_to_the_existing_reply() -> None:
    before = replace(cloud(1, 1)[0], replies=(Reply((), "policy", scores={"right": 1.0}),))
    scored = EmbeddingClassifier(cloud(30, 0), NAMES, ("x",))([before], EmbeddingContext())
    assert len(scored[0].replies) == 1
    assert scored[0].replies[0].scores == {"right": 1.0}


def test_unlabelled_samples_are_not_fitted_on() -> None:
    unknown = [replace(s, columns={"label": -1.0}) for s in cloud(30, 0)]
    with pytest.raises(ConfigError, match="wanted labeled samples"):
        EmbeddingClassifier(unknown, NAMES, ("x",))(cloud(3, 1), EmbeddingContext())
