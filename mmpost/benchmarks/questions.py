"""The questions of a benchmark that are asked: all of them, or a part that is the same for every model and run."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmpost.benchmarks.benchmark import Benchmark, benchmark
from mmpost.benchmarks.hub import HUB, fetch
from mmpost.errors import ConfigError
from mmpost.types import Sample


@dataclass(frozen=True)
class Questions:
    """Questions of a benchmark."""

    name: str
    bench: Benchmark
    samples: list[Sample]
    release: str
    """Of the official files; see `Benchmark.release`."""

    @classmethod
    def load(cls, name: str, folder: str, max_samples: int = 0) -> Questions:
        """Read the official files of the benchmark `name` in `folder`; about `max_samples` questions (0: all).

        `folder` may be "hub", see `fetch`. Raises ConfigError for no folder, PluginError for an unknown benchmark,
        DataError for files that are missing or damaged.
        """
        bench = benchmark(name)
        if not folder:
            raise ConfigError(f"bench={name}: wanted the folder of official files, found none; set data.benches=FOLDER")
        paths = bench.paths(fetch(bench, name) if folder == HUB else Path(folder).expanduser(), name)
        return cls(name, bench, subset(bench, list(bench.rows(paths)), max_samples), bench.release(paths))

    def without_media(self) -> Questions:
        """The same questions as text alone: what can be answered without looking."""
        parts = [tuple(part for part in sample.prompt if part.modality == "text") for sample in self.samples]
        samples = [replace(sample, prompt=prompt) for sample, prompt in zip(self.samples, parts, strict=True)]
        return replace(self, samples=samples)


def subset(bench: Benchmark, samples: Sequence[Sample], n: int) -> list[Sample]:
    """About `n` questions (0: all), in their order: whole clusters, which are the same for every model and run."""
    if not n or n >= len(samples):
        return list(samples)
    clusters: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        clusters[bench.cluster(sample)].append(sample)
    kept: set[str] = set()
    for name in sorted(clusters, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if len(kept) >= n:
            break
        kept |= {sample.uid for sample in clusters[name]}
    return [sample for sample in samples if sample.uid in kept]
