"""Scores of made-up replies by the official code of a benchmark: what the tests compare with.

    python -m tests.benchmarks.official_scores pope --official CHECKOUT

The official code is no part of this project. Stored in official/NAME.jsonl are the repository with its commit and, for
each reply, what it was scored with and the score, null where it is left out; and the official metrics of all of them
together, where the file in sets/ computes some (`metrics_officially`).
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "official"
NAMES = sorted(path.stem for path in (Path(__file__).parent / "sets").glob("*.py"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--official", type=Path, required=True, help="a checkout of the official repository")
    arguments = parser.parse_args()
    bench = import_module(f"tests.benchmarks.sets.{arguments.name}")
    git = ["git", "-C", str(arguments.official), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    scored = bench.scored_officially(arguments.official, random.Random(arguments.name))
    rows = [row | {"official": score} for row, score in scored]
    source: dict[str, Any] = {"repository": bench.REPOSITORY, "commit": commit}
    if hasattr(bench, "metrics_officially"):
        source["metrics"] = bench.metrics_officially(arguments.official, rows)
    lines = [source, *rows]
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / f"{arguments.name}.jsonl"
    written = (json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
    file.write_text("".join(written), encoding="utf-8")
    print(f"{file}: {len(lines) - 1} replies, {file.stat().st_size // 1024} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
