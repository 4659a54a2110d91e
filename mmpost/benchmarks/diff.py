"""Compare two evaluations of the same benchmark, question by question."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ValidationError
from scipy.stats import binomtest

from mmpost.benchmarks.benchmark import Scored
from mmpost.benchmarks.estimates import resampled
from mmpost.benchmarks.summaries import Mean
from mmpost.errors import DataError
from mmpost.metrics.intervals import holm
from mmpost.types import Sample

DETECTABLE = 2.802
"""Standard errors of the smallest difference that is seen (5 %, two-sided) in 80 % of evaluations."""


class Score(NamedTuple):
    """How both rules score a question, and its cluster."""

    official: float | None
    """None where the rule leaves the question out."""
    strict: float | None
    cluster: str


class ResultFile(BaseModel, extra="ignore"):
    """What `mmpost score bench=` and `mmpost eval bench=` write, as far as it is compared."""

    bench: str
    release: str
    scores: dict[str, tuple[float | None, float | None, str]]


class Difference(NamedTuple):
    """B minus A, in the mean score of the questions that both have."""

    bench: str
    value: float
    low: float
    high: float
    """The 95 % interval."""
    p: float
    """Two-sided; adjusted for the number of benchmarks."""
    test: str
    """exact McNemar, or cluster bootstrap."""
    detectable: float
    """The smallest difference that evaluations like these see in 80 % of cases."""
    n: int
    better: list[str]
    """Ids of the questions of which B's reply scores higher."""
    worse: list[str]


def read_results(path: Path) -> dict[str, ResultFile]:
    """The results by benchmark, in a file or a folder. Raises DataError for none, or two of one benchmark."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    found: dict[str, ResultFile] = {}
    for file in files:
        try:
            result = ResultFile.model_validate_json(file.read_bytes())
        except (ValidationError, OSError) as e:
            raise DataError(f"{file}: wanted a result of mmpost score or eval with bench=, found none ({e})") from e
        if result.bench in found:
            raise DataError(f"{path}: wanted one result of {result.bench}, found two; name one of the files")
        found[result.bench] = result
    if not found:
        raise DataError(f"{path}: wanted results (*.json), found none")
    return found


def compare(a: Mapping[str, ResultFile], b: Mapping[str, ResultFile], rule: str) -> list[Difference]:
    """The difference of each benchmark that both have, by the rule "official" or "strict"; p-values by Holm.

    Raises DataError if they share no benchmark, or the questions are of different releases.
    """
    names = [name for name in a if name in b]
    if not names:
        raise DataError(f"wanted a benchmark that both have, found {', '.join(a)} and {', '.join(b)}")
    for name in names:
        if a[name].release != b[name].release:
            raise DataError(f"{name}: wanted one release, found {a[name].release} and {b[name].release}")
    differences = [_difference(name, a[name].scores, b[name].scores, rule) for name in names]
    adjusted = holm([difference.p for difference in differences])
    return [difference._replace(p=p) for difference, p in zip(differences, adjusted, strict=True)]


def _difference(name: str, a: Mapping[str, Any], b: Mapping[str, Any], rule: str) -> Difference:
    place = Score._fields.index(rule)
    pairs = {uid: (a[uid][place], b[uid][place], a[uid][2]) for uid in a if uid in b}
    scores = {uid: (x, y, cluster) for uid, (x, y, cluster) in pairs.items() if x is not None and y is not None}
    if not scores:
        raise DataError(f"{name}: wanted questions that both have a score for, found none")
    better = [uid for uid, (x, y, _) in scores.items() if y > x]
    worse = [uid for uid, (x, y, _) in scores.items() if y < x]
    clusters: dict[str, list[Scored]] = defaultdict(list)
    for uid, (x, y, cluster) in scores.items():
        clusters[cluster].append(Scored(Sample(uid, ()), "", None, y - x))
    (metric,) = resampled(Mean(binary=False), list(clusters.values())).values()
    draws = metric.value[1:]
    is_binary = all({x, y} <= {0.0, 1.0} for x, y, _ in scores.values())
    if is_binary and len(clusters) == len(scores):
        test, p = "exact McNemar", mcnemar(len(better), len(worse))
    else:
        tail = min(float((draws <= 0).mean()), float((draws >= 0).mean()))
        test, p = "cluster bootstrap", min(1.0, 2 * max(tail, 1 / len(draws)))
    low, high = np.percentile(draws, [2.5, 97.5])
    return Difference(
        *(name, float(metric.value[0]), float(low), float(high), p, test),
        *(DETECTABLE * float(draws.std()), len(scores), better, worse),
    )


def mcnemar(better: int, worse: int) -> float:
    """The exact two-sided p-value of McNemar's test of paired shares (1947, Psychometrika 12, 153)."""
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def flipped(difference: Difference, shown: int) -> Sequence[str]:
    """The first questions that got better and worse, for a message."""
    sides = (("better", difference.better), ("worse", difference.worse))
    return [f"{len(uids)} {word}: {', '.join(uids[:shown])}" + (", ..." * (len(uids) > shown)) for word, uids in sides]
