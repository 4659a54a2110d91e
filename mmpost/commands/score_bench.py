"""`mmpost score bench=NAME`: what a file of predictions is worth on a benchmark, officially and strictly; no model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from mmpost.benchmarks.benchmark import Benchmark
from mmpost.benchmarks.contamination import read_findings
from mmpost.benchmarks.predictions import Predictions
from mmpost.benchmarks.questions import Questions
from mmpost.benchmarks.scoring import evaluate, side_by_side, table, without
from mmpost.errors import ConfigError
from mmpost.types import CoordinateFrame, Sample

OPTIONS = ("bench", "predictions", "key", "id", "coordinates", "without", "out", "data")
"""Of the command; `data` has the folder of official files, as `data.benches`."""


def score_bench(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Score `predictions=FILE` on the benchmark `bench`. Prints a table and returns the result, also written to `out`.

    `key` and `id` name the keys of replies and of questions' ids; without, those that files of predictions usually have
    are tried, of which `answer` is none. `coordinates` says how replies give places in pictures: pixels of the picture,
    or thousand (0 to 1000, whatever its size); without, as the official script takes them. `without=FILE`, which
    `mmpost check bench=` writes, adds the scores of the questions that training data do not have. Raises ConfigError
    for an unknown option, DataError for files that cannot be used.
    """
    unknown = sorted(arguments.keys() - set(OPTIONS))
    if unknown:
        raise ConfigError(f"score bench=...: wanted {', '.join(OPTIONS)}, found {unknown[0]!r}; remove it")
    name, file = str(arguments["bench"]), arguments.get("predictions")
    if file is None:
        raise ConfigError("wanted a file of predictions, found none; add predictions=FILE")
    data = arguments.get("data") or {}
    if not isinstance(data, Mapping) or data.keys() - {"benches"}:
        raise ConfigError(f"wanted the folder of official files, found {data!r}; set data.benches=FOLDER")
    questions = Questions.load(name, str(data.get("benches") or ""))
    bench, samples, release = questions.bench, questions.samples, questions.release
    key, id_key = (str(arguments.get(name) or "") for name in ("key", "id"))
    predictions = Predictions(bench, [sample.uid for sample in samples], key, id_key)
    replies = predictions.read(Path(str(file)))
    if "coordinates" in arguments:
        samples = _framed(samples, bench, str(arguments["coordinates"]))
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
        console.print(side_by_side(title, {"official": rest[0], "strict": rest[1]}))
        result["without"] = {"questions": list(seen), "official": rest[0], "strict": rest[1]}
    if "out" in arguments:
        Path(str(arguments["out"])).write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def _framed(samples: Sequence[Sample], bench: Benchmark, coordinates: str) -> list[Sample]:
    """The samples with the frame in which replies give places."""
    if not bench.coordinates or coordinates not in ("pixels", "thousand"):
        wanted = "pixels or thousand" if bench.coordinates else "no coordinates=, which this benchmark does not ask for"
        raise ConfigError(f"wanted {wanted}, found coordinates={coordinates}; correct it")
    framed = []
    for sample in samples:
        width, height = (1000, 1000) if coordinates == "thousand" else sample.truth["frame"]
        framed.append(replace(sample, frame=CoordinateFrame(width, height)))
    return framed
