#!/usr/bin/env python
"""docs/benchmark-rules.md: files, rules, metrics and quirks of every benchmark, from the modules in tasks/benches.

python scripts/benchmarks_page.py            # write it
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from mmpost.benchmarks.benchmark import PACKAGE, Benchmark, benchmark
from mmpost.config import registry

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmark-rules.md"
SHOWN = 3
"""Official files that are named; of more, the first and the last."""
INTRODUCTION = """# Benchmarks: files, official rules, quirks

Written by `python scripts/benchmarks_page.py` from `tasks/benches`. [Benchmarks](benchmarks.md) tells how to use them;
every oddity below is shown by a test, and the official rules score 1,000 stored replies as the official code does.
"""


def markdown() -> str:
    """The page."""
    docs = registry.modules(PACKAGE)
    return "\n\n".join([INTRODUCTION.strip(), *(section(name, docs[name], benchmark(name)) for name in docs)]) + "\n"


def section(name: str, doc: str, bench: Benchmark) -> str:
    """One benchmark."""
    return f"## {name}\n\n{doc}\n\n" + "\n".join(f"- {line}" for line in _lines(bench))


def _lines(bench: Benchmark) -> Iterator[str]:
    files = bench.files if len(bench.files) <= SHOWN else (bench.files[0], "...", bench.files[-1])
    named = ", ".join("..." if file == "..." else f"`{file}`" for file in files)
    others = f" (or one of {len(bench.versions)} other versions)" if bench.versions else ""
    yield f"**Files**: {named}{others}, from {bench.source}. License: {bench.license}."
    if bench.hub is not None:
        yield f"**Hub**: `data.benches=hub` fetches them from {bench.hub.repo}."
    for digest, release in bench.hashes.items():
        yield f"**Known**: {release} (sha256 {digest[:16]})."
    yield f"**Read from a reply**: {bench.reading}."
    yield f"**Metrics**: {bench.metrics}."
    yield from (f"*Odd*: {quirk}." for quirk in bench.quirks)


if __name__ == "__main__":
    PAGE.write_text(markdown(), encoding="utf-8")
    sys.exit(0)
