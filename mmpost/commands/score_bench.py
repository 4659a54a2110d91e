"""`mmpost score bench=NAME`: what a file of predictions is worth on a benchmark, officially and strictly; no model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from mmpost.benchmarks.benchmark import benchmark
from mmpost.benchmarks.contamination import read_findings
from mmpost.benchmarks.predictions import read_predictions
from mmpost.benchmarks.scoring import evaluate, side_by_side, table, without
from mmpost.errors import ConfigError

OPTIONS = ("bench", "predictions", "key", "id", "without", "out", "data")
"""Of the command; `data` has the folder of official files, as `data.benches`."""


def score_bench(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Score `predictions=FILE` on the benchmark `bench`. Prints a table and returns the result, also written to `out`.

    `key` and `id` name the keys of replies and of questions' ids; without, those that files of predictions usually have
    are tried, of which `answer` is none. `without=FILE`, which `mmpost check bench=` writes, adds the scores of the
    questions that training data do not have. Raises ConfigError for an unknown option, DataError for files that cannot
    be used.
    """
    unknown = sorted(arguments.keys() - set(OPTIONS))
    if unknown:
        raise ConfigError(f"score bench=...: wanted {', '.join(OPTIONS)}, found {unknown[0]!r}; remove it")
    name, file = str(arguments["bench"]), arguments.get("predictions")
    if file is None:
        raise ConfigError("wanted a file of predictions, found none; add predictions=FILE")
    bench = benchmark(name)
    data = arguments.get("data") or {}
    folder = data.get("benches") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or folder is None or data.keys() - {"benches"}:
        raise ConfigError(f"wanted the folder of official files, found {data!r}; set data.benches=FOLDER")
    paths = bench.paths(Path(str(folder)), name)
    key, id_key = (str(arguments.get(name) or "") for name in ("key", "id"))
    replies = read_predictions(Path(str(file)), key, id_key, bench.row_id, bench.row_reply)
    release, samples = bench.release(paths), list(bench.rows(paths))
    seen = read_findings(Path(str(arguments["without"])), name, release).found if "without" in arguments else {}
    evaluation = evaluate(bench, samples, replies, name, key)
    console = Console()
    console.print(table(f"{name} ({release}), {file}", evaluation))
    if evaluation.differing:
        console.print(f"scored differently: {', '.join(evaluation.differing[:5])}", highlight=False)
    result = {"bench": name, "release": release, "predictions": str(file), **evaluation.as_dict()}
    if "without" in arguments:
        rest = without(bench, samples, replies, seen, key)
        title = f"{name} without {len(seen)} of {len(samples)} questions, which {arguments['without']} names"
        console.print(side_by_side(title, *rest))
        result["without"] = {"questions": list(seen), "official": rest[0], "strict": rest[1]}
    if "out" in arguments:
        Path(str(arguments["out"])).write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result
