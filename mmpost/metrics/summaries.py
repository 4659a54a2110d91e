"""Summaries of the evaluations in `mmpost/metrics/embeddings.py`: classes, ranks, neighbors, outlier scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mmpost.core.means import values_by_name
from mmpost.types import Reply, Sample


def _replies_with(samples: Sequence[Sample], score: str) -> list[tuple[Sample, Reply]]:
    return [(s, r) for s in samples for r in s.replies if score in r.scores]


def class_accuracy(samples: Sequence[Sample]) -> dict[str, float]:
    """Accuracy in percent: "accuracy" over all samples, "balanced" averaged over the true classes. NaN without any."""
    right = values_by_name(
        (str(sample.truth), reply.scores["right"]) for sample, reply in _replies_with(samples, "right")
    )
    if not right:
        return {"accuracy": math.nan, "balanced": math.nan}
    return {
        "accuracy": 100 * float(np.mean([value for values in right.values() for value in values])),
        "balanced": 100 * float(np.mean([np.mean(values) for values in right.values()])),
    }


def retrieval_recall(samples: Sequence[Sample], at: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Recall@k in percent: "a>b@k" for each direction, and "recall@k" averaged over the directions."""
    ranks = values_by_name(
        (name.removeprefix("rank/"), rank)
        for sample in samples
        for reply in sample.replies
        for name, rank in reply.scores.items()
        if name.startswith("rank/")
    )
    recall = {f"{way}@{k}": 100 * float(np.mean(np.array(values) < k)) for way, values in ranks.items() for k in at}
    means = {f"recall@{k}": float(np.mean([recall[f"{way}@{k}"] for way in ranks])) for k in at if ranks}
    return {**means, **recall}


def neighbor_precision(samples: Sequence[Sample]) -> dict[str, float]:
    """Percentage of the nearest neighbors that have the sample's class; NaN without any."""
    same = [reply.scores["same"] for _, reply in _replies_with(samples, "same")]
    return {"precision": 100 * float(np.mean(same)) if same else math.nan}


def anomaly_detection(samples: Sequence[Sample], anomaly: str = "odd", mislabeled: str = "wrong") -> dict[str, float]:
    """Detection of known anomalies and wrong labels, which the scores `anomaly` and `mislabeled` mark.

    "outlier_auc" and "mislabel_auc" are areas under the ROC curve of the outlier score, in [0, 1]; "mislabel_precision"
    and "mislabel_recall" evaluate "suspect", in percent. NaN if undefined: nothing to detect, or nothing detected.
    """
    scores = [reply.scores for _, reply in _replies_with(samples, "outlier")]
    outlier, is_anomaly = (np.array([s.get(name, 0.0) for s in scores]) for name in ("outlier", anomaly))
    is_suspect, is_mislabeled = (np.array([s.get(name, 0.0) for s in scores]) > 0 for name in ("suspect", mislabeled))
    # A mislabeled sample lies far from its label's centroid without being an anomaly, and vice versa, so each AUC
    # excludes the other group.
    well_labeled, regular = ~is_mislabeled, is_anomaly == 0
    hits = float((is_suspect & is_mislabeled).sum())
    return {
        "outlier_auc": _roc_auc(is_anomaly[well_labeled], outlier[well_labeled]),
        "mislabel_auc": _roc_auc(is_mislabeled[regular].astype(float), outlier[regular]),
        "mislabel_precision": 100 * hits / float(is_suspect.sum()) if is_suspect.any() else math.nan,
        "mislabel_recall": 100 * hits / float(is_mislabeled.sum()) if is_mislabeled.any() else math.nan,
    }


def _roc_auc(truth: np.ndarray, score: np.ndarray) -> float:
    if len(np.unique(truth)) < 2:
        return math.nan
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth > 0, score))
