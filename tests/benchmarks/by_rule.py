"""The score of one reply by the rules of a benchmark."""

from __future__ import annotations

from typing import Any

from mmpost.benchmarks.benchmark import benchmark
from mmpost.types import Sample


def official(name: str, truth: Any, text: str, **meta: Any) -> float:
    bench, sample = benchmark(name), Sample("s", (), truth=truth, meta=meta)
    return bench.official.score(sample, bench.official.read(sample, text))


def strict(name: str, truth: Any, text: str, **meta: Any) -> float:
    bench, sample = benchmark(name), Sample("s", (), truth=truth, meta=meta)
    return bench.strict.score(sample, bench.strict.read(sample, text))
