"""Summaries of evaluations whose replies are classes, ranks or outlier scores (`transforms/embedded.py`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mmpost.types import Reply, Sample


def _replies(samples: Sequence[Sample], score: str) -> list[tuple[Sample, Reply]]:
    return [(s, r) for s in samples for r in s.replies if score in r.scores]


def class_accuracy(samples: Sequence[Sample]) -> dict[str, float]:
    """Right classes in percent: "accuracy" of all samples, "balanced" as the mean over the true classes."""
    found: dict[str, list[float]] = {}
    for sample, reply in _replies(samples, "right"):
        found.setdefault(str(sample.truth), []).append(reply.scores["right"])
    if not found:
        return {"accuracy": math.nan, "balanced": math.nan}
    return {
        "accuracy": 100 * float(np.mean([v for own in found.values() for v in own])),
        "balanced": 100 * float(np.mean([np.mean(own) for own in found.values()])),
    }


def recalls(samples: Sequence[Sample], at: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Recall at k in percent for each direction "a>b", and its mean over directions."""
    ranks: dict[str, list[float]] = {}
    for sample in samples:
        for reply in sample.replies:
            for name, value in reply.scores.items():
                if name.startswith("rank/"):
                    ranks.setdefault(name.removeprefix("rank/"), []).append(value)
    found = {f"{way}@{k}": 100 * float(np.mean(np.array(own) < k)) for way, own in ranks.items() for k in at}
    means = {f"recall@{k}": float(np.mean([found[f"{way}@{k}"] for way in ranks])) for k in at if ranks}
    return {**means, **found}


def same_share(samples: Sequence[Sample]) -> dict[str, float]:
    """How many of the nearest samples are of the same class, in percent."""
    found = [reply.scores["same"] for _, reply in _replies(samples, "same")]
    return {"precision": 100 * float(np.mean(found)) if found else math.nan}


def finding(samples: Sequence[Sample], odd: str = "odd", wrong: str = "wrong") -> dict[str, float]:
    """Planted anomalies by outlier score (area under the ROC curve), planted wrong labels by "suspect" (in percent).

    Undefined ones, where nothing was planted or nothing found, are NaN.
    """
    rows = [reply.scores for _, reply in _replies(samples, "outlier")]
    score, strange = (np.array([r.get(name, 0.0) for r in rows]) for name in ("outlier", odd))
    suspect, planted = (np.array([r.get(name, 0.0) for r in rows]) > 0 for name in ("suspect", wrong))
    # An object whose label is wrong lies far from that label's centroid, whatever it is itself.
    clean = ~planted
    hits = float((suspect & planted).sum())
    return {
        "outlier_auc": _auc(strange[clean], score[clean]),
        "mislabel_auc": _auc(planted[strange == 0].astype(float), score[strange == 0]),
        "mislabel_precision": 100 * hits / float(suspect.sum()) if suspect.any() else math.nan,
        "mislabel_recall": 100 * hits / float(planted.sum()) if planted.any() else math.nan,
    }


def _auc(truth: np.ndarray, score: np.ndarray) -> float:
    if len(np.unique(truth)) < 2:
        return math.nan
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth > 0, score))
